"""Chat completions of any OpenAI-compatible server: the judge, the simulated search engine, summaries."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, StrictStr

from r1searcher.common.http import Client, Key, Limits
from r1searcher.errors import ServiceError

T = TypeVar("T")


class _Message(BaseModel):
    content: StrictStr


class _Choice(BaseModel):
    message: _Message


class _Chat(BaseModel):
    """The part of a chat completion that holds the text."""

    choices: Annotated[list[_Choice], Field(min_length=1)]


class ChatServer:
    """One model at the URL of an OpenAI-compatible server.

    `what` names the server in errors ("the judge"); the key is in the first of `variables` that is set. Raises
    `InputError` for a malformed URL and for a key that cannot be sent; does not send anything yet.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        what: str,
        variables: tuple[str, ...],
        limits: Limits,
        error: type[ServiceError] = ServiceError,
    ) -> None:
        self.model = model
        self.client = Client(
            url,
            what,
            instead=f"set {variables[0]}",
            key=Key.from_environment(*variables),
            limits=limits,
            error=error,
        )
        self._url = endpoint(url, "chat/completions")

    async def ask(self, prompt: str, read: Callable[[str], T], **options: Any) -> T:
        """The result of `read` on the text of the completion of one user message.

        `options` are further fields of the request (`max_tokens`, `temperature`, `seed`, …). Raises a `ServiceError`,
        also if `read` raises `ValueError`.
        """

        def text_of(answer: Any) -> T:
            return read(_Chat.model_validate(answer).choices[0].message.content)

        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], **options}
        return await self.client.post(self._url, body, text_of)

    async def models(self) -> None:
        """Raises a `ServiceError` if the server cannot be reached."""
        await self.client.get(endpoint(self.client.url, "models"), lambda answer: None)

    async def aclose(self) -> None:
        await self.client.aclose()


def endpoint(url: str, name: str) -> str:
    """The URL of one endpoint of an OpenAI-compatible server, for any part of its URL.

    >>> endpoint("http://127.0.0.1:8000/", "models")
    'http://127.0.0.1:8000/v1/models'
    >>> endpoint("https://host/api/v1/chat/completions?version=2", "chat/completions")
    'https://host/api/v1/chat/completions?version=2'
    """
    parts = urlsplit(url)
    base = parts.path.rstrip("/").removesuffix("/completions").removesuffix("/chat").rstrip("/")
    base = base if base.endswith("/v1") else f"{base}/v1"
    return parts._replace(path=f"{base}/{name}", fragment="").geturl()


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with values for its placeholders. Inserted text is never treated as a placeholder.

    >>> filled("{a} and {b}", {"a": "{b}", "b": "c"})
    '{b} and c'
    """
    pieces = [template]
    for name in values:
        pieces = [part for piece in pieces for part in _around(piece, f"{{{name}}}")]
    return "".join(values.get(piece[1:-1], piece) if piece[:1] == "{" else piece for piece in pieces)


def _around(piece: str, name: str) -> tuple[str, ...]:
    before, found, after = piece.partition(name)
    return (before, found, *_around(after, name)) if found else (piece,)
