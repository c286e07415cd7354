"""Reranking: servers of three protocols, and a cross-encoder in this process."""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import SearchResult
from r1searcher.retrieval.contract import check_retriever
from r1searcher.retrieval.links.rerank import Reranker, Settings
from r1searcher.retrieval.registry import settings_of
from tests.common.http_server import http_server
from tests.retrieval.scripted import Scripted
from tests.retrieval.tiny_models import WORDS, tiny_bert

FOUND = {"q": [("a", 3.0), ("b", 2.0), ("c", 1.0), ("d", 0.5)], "other": [("e", 1.0)], "none": []}
SCORES = {"a": 0.1, "b": 0.9, "c": 0.9, "d": 0.5, "e": 0.3}


def score_of(text: str) -> float:
    return next(score for id_, score in SCORES.items() if f"text of {id_}" in text)


def rerank(body: Any) -> Any:
    """As Cohere, Jina and vLLM answer: the best first, with the place in the request."""
    assert set(body) == {"model", "query", "documents", "top_n"}
    scored = [{"index": n, "relevance_score": score_of(text)} for n, text in enumerate(body["documents"])]
    ranked = sorted(scored, key=lambda one: -one["relevance_score"])[: body["top_n"]]
    return {"id": "x", "model": body["model"], "results": ranked, "usage": {"total_tokens": 9}}


def tei(body: Any) -> Any:
    assert set(body) == {"query", "texts", "truncate"}
    return sorted(
        ({"index": n, "score": score_of(text)} for n, text in enumerate(body["texts"])), key=lambda one: -one["score"]
    )


def search_r1(body: Any) -> Any:
    """As Search-R1's server does: the documents of all queries are scored for every query, and texts are returned."""
    result = []
    for _ in body["queries"]:
        scored = []
        for documents in body["documents"]:
            for document in documents:
                title, _, text = document["contents"].partition("\n")
                scored.append({"document": f"(Title: {title}) {text}", "score": score_of(text)})
        result.append(sorted(scored, key=lambda one: -one["score"])[: body["rerank_topk"]])
    assert body["return_scores"] is True
    return {"result": result}


SERVERS: dict[str, Callable[[Any], Any]] = {"rerank": rerank, "tei": tei, "search-r1": search_r1}


def reranked(answer: Callable[[Any], Any], *queries: str, top_k: int = 3, **table: Any) -> list[SearchResult]:
    async def respond(request: Request) -> Response:
        said = answer(json.loads(await request.body()))
        return said if isinstance(said, Response) else JSONResponse(said)

    async def run(url: str) -> list[SearchResult]:
        settings = Settings.model_validate({"of": "x", "server": f"{url}/rerank", "model": "m", **table})
        async with aclosing(Reranker(Scripted(FOUND), settings)) as link:
            return await link.search(queries, top_k)

    with http_server([Route("/rerank", respond, methods=["POST"])]) as url:
        return asyncio.run(run(url))


@pytest.mark.parametrize("protocol", SERVERS)
def test_passages_are_in_the_order_of_the_servers_scores(protocol: str) -> None:
    results = reranked(SERVERS[protocol], "q", "other", "none", protocol=protocol)
    ranked = [[(hit.passage.id, hit.score) for hit in result.require_hits()] for result in results]
    assert ranked == [[("b", 0.9), ("c", 0.9), ("d", 0.5)], [("e", 0.3)], []]
    assert [span.link for span in results[0].spans] == ["rerank"]


@pytest.mark.parametrize("protocol", SERVERS)
@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"results": [{"index": 0, "relevance_score": 1.0}]},
        {"results": [{"index": n % 2, "relevance_score": 1.0} for n in range(4)]},
        {"results": [{"index": n, "relevance_score": None} for n in range(4)]},
        [{"index": 7, "score": 0.1}] * 4,
        {"result": [[]]},
        {"result": [[], []]},
    ],
)
def test_an_answer_without_a_score_for_each_passage_is_an_error(protocol: str, answer: Any) -> None:
    [result] = reranked(lambda body: answer, "q", protocol=protocol)
    assert isinstance(result.error, RetrieverError)
    assert not result.error.transient


def test_a_server_that_is_down_is_an_error_of_the_query_and_not_the_old_order() -> None:
    [result, none] = reranked(lambda body: JSONResponse({}, 503), "q", "none")
    assert result.error is not None
    assert result.error.transient
    assert none.require_hits() == ()


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_reranked_engine_keeps_the_contract(protocol: str) -> None:
    async def respond(request: Request) -> Response:
        return JSONResponse(SERVERS[protocol](json.loads(await request.body())))

    with http_server([Route("/rerank", respond, methods=["POST"])]) as url:
        settings = Settings.model_validate({"of": "x", "server": f"{url}/rerank", "model": "m", "protocol": protocol})
        asyncio.run(check_retriever(Reranker(Scripted(FOUND), settings), "q"))


def test_urls_name_a_model_or_a_server() -> None:
    local, remote = settings_of("index -> rerank:org/model"), settings_of("index -> rerank:http://h:1/rerank")
    assert isinstance(local, Settings)
    assert isinstance(remote, Settings)
    assert (local.model, local.server) == ("org/model", "")
    assert (remote.model, remote.server) == ("", "http://h:1/rerank")
    with pytest.raises(InputError, match="give a model or a server"):
        settings_of("index -> rerank")
    with pytest.raises(InputError, match="the name that the reranker's server expects"):
        Reranker(Scripted({}), remote)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return tiny_bert(tmp_path_factory.mktemp("cross-encoder"), "BertForSequenceClassification", num_labels=1)


@pytest.mark.training
def test_1280_pairs_take_20_passes_with_little_padding_and_the_scores_of_one_at_a_time(model: Path) -> None:
    from r1searcher.retrieval.neural.cross_encoder import CrossEncoder

    random.seed(5)

    def words(least: int, most: int) -> str:
        return " ".join(random.choices(WORDS, k=random.randint(least, most)))

    pairs = [(words(3, 15), words(5, 200)) for _ in range(1280)]
    together = CrossEncoder(str(model))
    found = together.scores(pairs)
    assert together.work.passes <= 20
    assert together.work.padding <= 0.2 * together.work.tokens
    alone = CrossEncoder(str(model))
    single = [score for pair in pairs for score in alone.scores([pair])]
    assert found == pytest.approx(single, abs=1e-4)
    assert max(single) - min(single) > 0.1  # the scores differ


@pytest.mark.training
def test_episodes_at_the_same_time_share_forward_passes(model: Path) -> None:
    random.seed(6)
    rankings = {
        f"w{n} w{n + 1}": [(" ".join(random.choices(WORDS, k=20)), 1 / rank) for rank in range(1, 21)]
        for n in range(64)
    }
    settings = Settings.model_validate({"of": "x", "model": str(model)})

    async def run() -> tuple[list[list[SearchResult]], list[SearchResult], int]:
        link = Reranker(Scripted(rankings), settings)
        found = await asyncio.gather(*(link.search([query], 5) for query in rankings))
        passes = link._scorer.encoder.work.passes  # type: ignore[attr-defined]
        one_by_one = [(await link.search([query], 5))[0] for query in rankings]
        await link.aclose()
        return found, one_by_one, passes

    found, one_by_one, passes = asyncio.run(run())
    assert passes <= 20  # 1,280 pairs
    for [result], other in zip(found, one_by_one, strict=True):
        assert [hit.passage.id for hit in result.hits] == [hit.passage.id for hit in other.hits]


@pytest.mark.training
def test_models_that_are_no_cross_encoder_are_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        Reranker(Scripted({}), Settings.model_validate({"of": "x", "model": str(tmp_path)}))
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "id2label": {str(n): f"L{n}" for n in range(5)}}))
    with pytest.raises(InputError, match="has 5 outputs"):
        Reranker(Scripted({}), Settings.model_validate({"of": "x", "model": str(tmp_path)}))


@pytest.mark.training
def test_an_encoder_without_a_head_is_refused(model: Path, tmp_path: Path) -> None:
    """transformers would add a head of random weights, whose scores look like any others."""
    from transformers import AutoTokenizer, BertForSequenceClassification

    BertForSequenceClassification.from_pretrained(model).bert.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "id2label": {"0": "L0"}}))
    with pytest.raises(InputError, match=r"is not a cross-encoder: its files have no classifier\.bias"):
        Reranker(Scripted({}), Settings.model_validate({"of": "x", "model": str(tmp_path)}))
