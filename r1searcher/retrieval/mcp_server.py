"""Any retriever as an MCP server (Model Context Protocol, https://modelcontextprotocol.io), with the official SDK.

    search {"query", "top_k"} -> {"passages": [{"id", "title", "text", "score"}, …]}
    open   {"id"}             -> {"id", "title", "text"}

Both also return text for people and models. What fails is the result of the tool, marked as an error, in one sentence.
Texts of passages are data: the structured result has them unchanged, the readable one with visible control characters.
"""

import logging
import os
import signal
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Annotated, Any, TypeVar

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from r1searcher import __version__
from r1searcher.common.records import problem_in
from r1searcher.common.terminal import visible
from r1searcher.corpora.passage import Passage
from r1searcher.errors import R1Error
from r1searcher.retrieval.base import Hit, NoLookupError, Retriever, clean_query, hits_of, passage_of
from r1searcher.retrieval.server import App, Lifespan, closing, host_name, refuse

MOST_PASSAGES = 100
MAX_BODY_BYTES = 1 << 20
MAX_ANSWER_CHARS = 10_000_000
_REMEMBERED, _REMEMBERED_CHARS = 10_000, 64_000_000
_LONGEST_ID = 10_000

_log = logging.getLogger("r1searcher.mcp")

_Arguments = TypeVar("_Arguments", bound=BaseModel)
Streams = tuple[TextIOWrapper, TextIOWrapper]


class ToolFailure(R1Error):
    """The sentence that a client gets instead of a result."""


def _query(text: str) -> str:
    query = clean_query(text).strip()
    if not query:
        raise PydanticCustomError("empty", "must not be empty")
    return query


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class SearchArguments(_Strict):
    query: Annotated[str, AfterValidator(_query)] = Field(description="What to search for: a question or keywords.")
    top_k: int = Field(5, ge=1, le=MOST_PASSAGES, description="How many passages to return at most.")


class OpenArguments(_Strict):
    id: str = Field(max_length=_LONGEST_ID, description="The id of a passage, as search returned it.")


class WholePassage(BaseModel):
    id: str
    title: str
    text: str


class FoundPassage(WholePassage):
    score: float = Field(description="The search engine's own score; higher is better.")


class Found(BaseModel):
    passages: list[FoundPassage] = Field(description="Best first; empty if nothing matches.")


@dataclass(frozen=True, slots=True)
class _Tool:
    """One tool: `run` returns the structured and the readable result."""

    name: str
    description: str
    arguments: type[BaseModel]
    answer: type[BaseModel]
    run: Callable[[Any], Awaitable[tuple[BaseModel, str]]]

    def described(self) -> Tool:
        return Tool(
            name=self.name,
            description=self.description,
            input_schema=self.arguments.model_json_schema(),
            output_schema=self.answer.model_json_schema(mode="serialization"),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True),
        )

    async def result(self, arguments: Mapping[str, Any]) -> CallToolResult:
        """The result of a call. Every failure is a result with `is_error`."""
        try:
            answer, text = await self.run(self.arguments.model_validate(arguments))
            if len(text) > MAX_ANSWER_CHARS:
                raise ToolFailure(f"the result is longer than {MAX_ANSWER_CHARS:,} characters: use a smaller top_k")
        except ValidationError as error:
            return _failure(f"{self.name}: {problem_in(error)}")
        except R1Error as error:
            return _failure(f"{self.name} failed: {error}")
        except Exception:
            _log.exception("A tool failed: this is a bug in r1s.")
            return _failure(f"{self.name} failed: this is a bug in the server, see its terminal")
        return CallToolResult(content=[TextContent(text=text)], structured_content=answer.model_dump())


def _failure(sentence: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=visible(sentence))], is_error=True)


class Tools:
    """The tools of a retriever. Passages that were found are remembered, for engines that cannot look one up by id."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._known = Remembered()

    def all(self) -> list[_Tool]:
        return [
            _Tool(
                "search",
                "Search a collection of passages. Returns the best ones with id, title, text and score.",
                SearchArguments,
                Found,
                self.search,
            ),
            _Tool(
                "open",
                "Get one whole passage by the id that search returned.",
                OpenArguments,
                WholePassage,
                self.open,
            ),
        ]

    async def search(self, asked: SearchArguments) -> tuple[Found, str]:
        [hits] = await hits_of(self._retriever, [asked.query], asked.top_k)
        found = [Hit(_encodable(hit.passage), hit.score) for hit in hits]
        self._known.add(hit.passage for hit in found)
        rows = [FoundPassage(**_fields(hit.passage), score=hit.score) for hit in found]
        texts = [
            f"{place}. {row.title} (id: {row.id}, score: {row.score:.3f})\n{row.text}"
            for place, row in enumerate(rows, 1)
        ]
        return Found(passages=rows), visible("\n\n".join(texts) or "No passage matches.")

    async def open(self, asked: OpenArguments) -> tuple[WholePassage, str]:
        passage = await self._lookup(asked.id)
        whole = WholePassage(**_fields(_encodable(passage)))
        return whole, visible(f"{whole.title}\n\n{whole.text}".strip())

    async def _lookup(self, id_: str) -> Passage:
        try:
            passage = await passage_of(self._retriever, id_)
            where = ""
        except NoLookupError:
            passage = self._known.get(id_)
            where = " among those that this server found lately, the only ones that can be opened here: search again"
        if passage is None:
            raise ToolFailure(f"no passage has the id {id_[:200]!r}{where}")
        return passage


def _encodable(passage: Passage) -> Passage:
    """The passage without lone surrogates, which cannot be sent."""
    return Passage(*(part.encode("utf-8", "replace").decode() for part in (passage.id, passage.title, passage.text)))


def _fields(passage: Passage) -> dict[str, str]:
    return {"id": passage.id, "title": passage.title, "text": passage.text}


class Remembered:
    """The passages that were found last, by id; of several with the same id the last search's best one."""

    def __init__(self, most: int = _REMEMBERED, most_chars: int = _REMEMBERED_CHARS) -> None:
        self._passages: OrderedDict[str, Passage] = OrderedDict()
        self._most, self._most_chars = most, most_chars
        self._chars = 0

    def add(self, passages: Iterable[Passage]) -> None:
        for passage in reversed(list(passages)):
            self._drop(self._passages.pop(passage.id, None))
            self._passages[passage.id] = passage
            self._chars += _size(passage)
        while len(self._passages) > self._most or self._chars > self._most_chars:
            self._drop(self._passages.popitem(last=False)[1])

    def get(self, id_: str) -> Passage | None:
        if id_ in self._passages:
            self._passages.move_to_end(id_)
        return self._passages.get(id_)

    def _drop(self, passage: Passage | None) -> None:
        if passage is not None:
            self._chars -= _size(passage)


def _size(passage: Passage) -> int:
    return len(passage.id) + len(passage.title) + len(passage.text)


def make_server(retriever: Retriever) -> Any:
    """The SDK's server with both tools; a call of another tool is a result with `is_error` too."""
    tools = {tool.name: tool for tool in Tools(retriever).all()}

    async def on_list_tools(context: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[tool.described() for tool in tools.values()])

    async def on_call_tool(context: Any, params: Any) -> CallToolResult:
        if params.name not in tools:
            return _failure(f"there is no tool {params.name[:100]!r}: use {' or '.join(tools)}")
        return await tools[params.name].result(params.arguments or {})

    logging.getLogger("mcp").setLevel(logging.ERROR)  # at lower levels it logs what clients sent
    return Server("r1searcher", version=__version__, on_list_tools=on_list_tools, on_call_tool=on_call_tool)


def make_app(
    retriever: Retriever, allowed_hosts: frozenset[str] | None = None, lifespan: Lifespan | None = None
) -> App:
    """The server over HTTP, as an ASGI application at `/mcp`, which closes the retriever when it ends.

    Requests are independent of each other, so the server keeps nothing of its clients. `allowed_hosts` as for
    `retrieval.server.make_app`; the `Origin` of a browser must be one of them too.
    """
    manager = StreamableHTTPSessionManager(
        make_server(retriever), json_response=True, stateless=True, max_request_body_size=MAX_BODY_BYTES
    )

    @asynccontextmanager
    async def running(app: Any) -> AsyncIterator[None]:
        async with manager.run():
            yield

    endpoint = Route("/mcp", _OwnOrigins(StreamableHTTPASGIApp(manager), allowed_hosts), methods=["POST"])
    return App(Router([endpoint], lifespan=closing(retriever, running, lifespan)), allowed_hosts)


class _OwnOrigins:
    """Rejects requests that a browser sends for a page of another host, as the protocol's transport demands."""

    def __init__(self, app: ASGIApp, allowed_hosts: frozenset[str] | None) -> None:
        self._app = app
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._allowed_hosts is not None:
            for name, value in scope["headers"]:
                if name == b"origin" and host_name(value.partition(b"://")[2]) not in self._allowed_hosts:
                    detail = "This server does not accept requests of pages of other hosts."
                    return await refuse(403, detail, scope, receive, send)
        await self._app(scope, receive, send)


@contextmanager
def standard_streams() -> Iterator[Streams]:
    """Standard input and output for the protocol alone: what else reads or prints gets nothing, or standard error.

    Ctrl-C then ends the process at once: a thread that waits for input could not be ended in another way.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    with (
        os.fdopen(source, encoding="utf-8", errors="replace") as reader,
        os.fdopen(sink, "w", encoding="utf-8", newline="\n") as writer,
    ):
        yield reader, writer


async def serve_stdio(retriever: Retriever, streams: Streams) -> None:
    """Serve one client until it closes the streams."""
    server = make_server(retriever)
    reader, writer = map(anyio.wrap_file, streams)
    async with aclosing(retriever), stdio_server(reader, writer) as (requests, answers):
        await server.run(requests, answers, server.create_initialization_options())
