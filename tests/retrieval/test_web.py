"""Web search: each provider's requests and responses, keys, budgets, and results that copy a benchmark.

Responses have the fields of the providers' public documentation; the server is a real one on this machine.
"""

import asyncio
import json
import multiprocessing
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from r1searcher.errors import FileError, InputError, R1Error, RetrieverError, RunStopped
from r1searcher.retrieval.base import EpisodeContext, SearchResult, bind
from r1searcher.retrieval.budget import Budget
from r1searcher.retrieval.contract import check_retriever
from r1searcher.retrieval.engines import web
from r1searcher.retrieval.engines.web import PROVIDERS, Pace, Settings, contains_question, in_domains, normalize
from r1searcher.retrieval.registry import described, settings_of, settings_of_table
from tests.common.http_server import http_server

SECRET = "sk-7c1d-93ab+e2f4/Kw=="
PAGES = [
    ("Oslo", "https://en.wikipedia.org/wiki/Oslo", "Oslo is the capital of Norway & its largest city."),
    ("Norway", "https://example.org/norway", "A country in Northern Europe."),
]


def serper() -> dict[str, Any]:
    organic = [{"title": t, "link": u, "snippet": s, "position": n} for n, (t, u, s) in enumerate(PAGES, 1)]
    return {"searchParameters": {"q": "x", "type": "search", "engine": "google"}, "organic": organic, "credits": 1}


def serpapi() -> dict[str, Any]:
    results = [{"position": n, "title": t, "link": u, "snippet": s} for n, (t, u, s) in enumerate(PAGES, 1)]
    return {"search_metadata": {"id": "1", "status": "Success"}, "search_parameters": {}, "organic_results": results}


def brave() -> dict[str, Any]:
    def marked(text: str) -> str:
        return text.replace("Norway", "<strong>Norway</strong>").replace("&", "&amp;")

    results = [{"type": "search_result", "title": t, "url": u, "description": marked(s)} for t, u, s in PAGES]
    return {"type": "search", "query": {"original": "x"}, "web": {"type": "search", "results": results}}


def tavily() -> dict[str, Any]:
    results = [{"title": t, "url": u, "content": s, "score": 0.9, "raw_content": None} for t, u, s in PAGES]
    return {"query": "x", "answer": None, "images": [], "results": results, "response_time": 0.6}


def searxng() -> dict[str, Any]:
    results = [{"title": t, "url": u, "content": s, "engine": "brave", "score": 1.0} for t, u, s in PAGES]
    return {"query": "x", "number_of_results": 0, "results": results, "unresponsive_engines": [["google", "timeout"]]}


ANSWERS = {"serper": serper, "serpapi": serpapi, "brave": brave, "tavily": tavily, "searxng": searxng}
NOTHING = {
    "serper": {"searchParameters": {"q": "x"}, "organic": []},
    "serpapi": {
        "search_metadata": {"status": "Success"},
        "error": "Google hasn't returned any results for this query.",
    },
    "brave": {"type": "search", "query": {"original": "x"}},
    "tavily": {"query": "x", "results": []},
    "searxng": {"query": "x", "results": [], "unresponsive_engines": []},
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in PROVIDERS.values():
        if provider.variable:
            monkeypatch.setenv(provider.variable, SECRET)


class Server:
    """What the provider answers, and every request it got."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []

    async def respond(self, request: Request) -> Response:
        body = await request.body()
        sent = json.loads(body) if body else dict(request.query_params)
        self.requests.append((request.method, request.url.path, dict(request.headers), sent))
        answer = self.answer() if callable(self.answer) else self.answer
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    @property
    def routes(self) -> list[Route]:
        return [Route("/{path:path}", self.respond, methods=["GET", "POST"])]


def settings(provider: str, address: str, **table: Any) -> Settings:
    made = settings_of_table("web", {"url": f"web:{provider}", "address": address, **table})
    assert isinstance(made, Settings)
    return made


def search(
    provider: str, answer: Any, *queries: str, top_k: int = 5, episode: EpisodeContext | None = None, **table: Any
) -> tuple[list[SearchResult], Server]:
    server = Server(answer)

    async def run(address: str) -> list[SearchResult]:
        async with aclosing(settings(provider, f"{address}/api", **table).open()) as engine:
            return await (bind(engine, episode) if episode else engine).search(queries, top_k)

    with http_server(server.routes) as address:
        return asyncio.run(run(address)), server


@pytest.mark.parametrize("provider", PROVIDERS)
def test_results_of_each_provider_are_passages(provider: str) -> None:
    [result], _ = search(provider, ANSWERS[provider], "capital of Norway")
    found = [(hit.passage.title, hit.passage.id, hit.passage.text) for hit in result.require_hits()]
    assert found == PAGES
    assert [hit.score for hit in result.hits] == [1.0, 0.5]
    assert [span.link for span in result.spans] == [f"web:{provider}"]


@pytest.mark.parametrize(
    ("provider", "method", "header", "sent"),
    [
        ("serper", "POST", ("x-api-key", SECRET), {"q": "capital of Norway", "num": 10}),
        (
            "serpapi",
            "GET",
            None,
            {"engine": "google", "q": "capital of Norway", "num": "10", "api_key": SECRET},
        ),
        ("brave", "GET", ("x-subscription-token", SECRET), {"q": "capital of Norway", "count": "10"}),
        ("tavily", "POST", ("authorization", f"Bearer {SECRET}"), {"query": "capital of Norway", "max_results": 10}),
        ("searxng", "GET", None, {"format": "json", "q": "capital of Norway"}),
    ],
)
def test_requests_have_each_providers_form(
    provider: str, method: str, header: tuple[str, str] | None, sent: dict[str, Any]
) -> None:
    _, server = search(provider, ANSWERS[provider], " capital\nof \0 Norway ")
    [(verb, path, headers, body)] = server.requests
    assert (verb, body) == (method, sent)
    assert path == ("/api/search" if provider == "searxng" else "/api")
    keys = {name: value for name, value in headers.items() if SECRET in value}
    assert keys == (dict([header]) if header else {})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_found_is_an_empty_result_and_a_foreign_answer_an_error(provider: str) -> None:
    [result], _ = search(provider, NOTHING[provider], "q")
    assert result.require_hits() == ()
    foreign = [other for other in PROVIDERS if {other, provider} != {"tavily", "searxng"} and other != provider]
    for answer in ({}, [], {"error": "no"}, *(ANSWERS[other]() for other in foreign)):
        [result], _ = search(provider, answer, "q")
        assert result.error is not None, (provider, answer)
        assert not result.error.transient


def test_searxng_without_an_engine_that_answers_is_an_outage() -> None:
    answer = {"results": [], "unresponsive_engines": [["google", "CAPTCHA"], ["brave", "timeout"]]}
    [result], _ = search("searxng", answer, "q")
    assert result.error is not None
    assert result.error.transient
    assert "google" in str(result.error)


def test_searxng_that_sends_no_json_is_told_how() -> None:
    """Its answer without `json` among its formats, which its default settings do not have."""
    [result], _ = search("searxng", lambda: HTMLResponse("<title>403 Forbidden</title>", 403), "q")
    assert "add json to `search.formats`" in str(result.error)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [401, 429, 500])
def test_an_error_never_shows_the_key(provider: str, status: int) -> None:
    def echo() -> Response:
        return JSONResponse({"message": f"bad key {SECRET}, {SECRET[3:]}"}, status, {"Retry-After": "7"})

    [result], _ = search(provider, echo, "q")
    assert isinstance(result.error, RetrieverError)
    assert result.error.transient == (status != 401)
    assert result.error.retry_after == 7.0
    if PROVIDERS[provider].variable:
        assert not any(SECRET[i : i + 8] in str(result.error) for i in range(len(SECRET) - 7))


def test_a_failing_query_does_not_fail_the_others() -> None:
    answers = iter([JSONResponse({}, 503), JSONResponse(serper()), JSONResponse(serper())])
    results, _ = search("serper", lambda: next(answers), "a", "b", "c", connections=1)
    assert sorted(result.error is not None for result in results) == [False, False, True]


def test_results_of_benchmark_pages_are_left_out_and_counted() -> None:
    question = "Who was the mayor of Oslo when the tram line opened?"
    pages = [
        {"title": "a", "link": "https://huggingface.co/datasets/x", "snippet": "y"},
        {"title": "b", "link": "https://datasets-server.HuggingFace.co./x", "snippet": "y"},
        {"title": "c", "link": "https://nothuggingface.co/x", "snippet": "y"},
        {"title": "d", "link": "https://e.org", "snippet": f"17. {question.upper().replace('?', ' ?!')} A: Ada"},
        {"title": "e", "link": "https://f.org", "snippet": "The mayor of Oslo opened the tram line."},
        {"title": "f", "link": "javascript:alert(1)", "snippet": "z"},
    ]
    answer = {**serper(), "organic": pages}
    [result], _ = search("serper", answer, "q", episode=EpisodeContext(question=question))
    assert [hit.passage.title for hit in result.hits] == ["c", "e"]
    assert [span.link for span in result.spans] == ["web:serper (3 left out)"]
    [kept], _ = search("serper", answer, "q", exclude_domains=[], exclude_question=False)
    assert [hit.passage.title for hit in kept.hits] == ["a", "b", "c", "d", "e"]


def test_short_questions_exclude_nothing() -> None:
    assert not contains_question("Who is Ada? A page.", normalize("Who is Ada?"))
    assert not contains_question("anything", normalize(""))
    assert not in_domains("https://[broken", ("example.org",))


def test_costs_are_in_the_span_and_counted() -> None:
    [result], _ = search("serper", serper, "q", cost_usd=0.004)
    assert [span.cost_usd for span in result.spans] == [0.004]


def test_a_budget_stops_the_run_before_it_is_exceeded(tmp_path: Path) -> None:
    table = {"budget_searches": 3, "budget_file": str(tmp_path / "spent"), "cost_usd": 0.01}
    _, server = search("serper", serper, "a", "b", **table)
    assert len(server.requests) == 2
    with pytest.raises(RunStopped, match=r"budget of 3 searches is used up: 3 searches for \$0.03 .*budget_searches"):
        search("serper", serper, "c", "d", connections=1, **table)
    with pytest.raises(RunStopped, match=r"budget of \$0.03"):
        search("serper", serper, "c", **{**table, "budget_searches": None, "budget_usd": 0.03})
    _, server = search("serper", serper, "c", **{**table, "budget_searches": 4})
    assert len(server.requests) == 1


def _spend(file: str, allowed: "multiprocessing.Queue[int]") -> None:
    budget = Budget(Path(file), searches=250, usd=None, cost_usd=0.1)
    sent = 0
    try:
        for _ in range(100):
            asyncio.run(budget.spend())
            sent += 1
    except RunStopped:
        pass
    allowed.put(sent)


def test_processes_share_a_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    allowed: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=_spend, args=(str(tmp_path / "spent"), allowed)) for _ in range(4)]
    for process in processes:
        process.start()
    assert sum(allowed.get(timeout=60) for _ in processes) == 250
    for process in processes:
        process.join(60)
    searches, usd = Budget(tmp_path / "spent", searches=None, usd=None, cost_usd=0.1).spent()
    assert searches == 250
    assert usd == pytest.approx(25.0)


def test_files_that_are_no_count_are_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("something else" * 100)
    with pytest.raises(InputError, match="is not a count of paid searches"):
        Budget(tmp_path / "x", searches=1, usd=None, cost_usd=0.0)
    with pytest.raises(FileError, match="cannot be counted"):
        Budget(tmp_path / "no" / "x", searches=1, usd=None, cost_usd=0.0)


def test_the_pace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same moment five searches ask to begin, two per second."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def five() -> None:
        pace = Pace(2.0)
        for _ in range(5):
            await pace()

    monkeypatch.setattr(web, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(web, "asyncio", SimpleNamespace(sleep=sleep))
    asyncio.run(five())
    assert waited == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"url": "web:altavista"}, "there is no provider 'altavista'"),
        ({"url": "web:searxng"}, "give the server"),
        ({"url": "web:serper", "budget_searches": 5}, "set `budget_file`"),
        ({"url": "web:serper", "budget_usd": 5.0, "budget_file": "x"}, "set `cost_usd`"),
    ],
)
def test_wrong_settings_are_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of_table("web", table)


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAVILY_API_KEY")
    with pytest.raises(InputError, match="set the environment variable TAVILY_API_KEY"):
        settings_of("web:tavily").open()


def test_addresses_and_what_a_manifest_shows() -> None:
    assert settings_of("web:searxng:http://h:8080/").base == "http://h:8080/search"  # type: ignore[attr-defined]
    assert settings_of("web:serper").base == "https://google.serper.dev/search"  # type: ignore[attr-defined]
    assert SECRET not in str(described(settings_of("web:serper")))
    assert set(settings_of("web:serper -> cache:x").variables) == {p.variable for p in PROVIDERS.values()} - {""}


def test_it_keeps_the_contract_of_retrievers() -> None:
    with http_server(Server(serper).routes) as address:
        asyncio.run(check_retriever(settings("serper", address).open(), "capital of Norway", top_k=2))


def test_a_server_that_is_down_is_an_error() -> None:
    async def run() -> None:
        async with aclosing(settings("serper", "http://127.0.0.1:9/").open()) as engine:
            [result] = await engine.search(["q"], 1)
            assert isinstance(result.error, R1Error)
            assert result.error.transient

    asyncio.run(run())
