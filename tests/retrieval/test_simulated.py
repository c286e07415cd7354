"""The simulated search engine: share of noise, draws, whose answers it knows, and what it does with odd texts."""

import asyncio
import re
import subprocess
import sys
from contextlib import aclosing
from typing import Any

import pytest
from starlette.responses import JSONResponse

from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import EpisodeContext, SearchResult, bind
from r1searcher.retrieval.contract import check_outage, check_retriever
from r1searcher.retrieval.engines.simulated import Settings, documents_in, is_noisy, noise
from r1searcher.retrieval.registry import settings_of, settings_of_table
from tests.common.chat_server import chat_server


def settings(url: str = "http://h/v1", **keys: Any) -> Settings:
    table = {"url": f"simulated:{url}", "model": "m", "steps": 100, **keys}
    engine = settings_of_table("simulated", table)
    assert isinstance(engine, Settings)
    return engine


def episode(number: int, step: int | None = 1, search: int = 1) -> EpisodeContext:
    question, answers = f"Who lives at number {number}?", (f"Person{number}x",)
    return EpisodeContext(id=f"q{number}", question=question, gold_answers=answers, step=step, search=search)


def listed(body: dict[str, Any], count: int = 3) -> str:
    """Documents that contain the answer of the prompt."""
    answer = re.search(r"^Its answer: (.*)$", body["messages"][0]["content"], re.MULTILINE)
    assert answer
    return "\n".join(f"Document {n}: Page {n} | The house belongs to {answer[1]}." for n in range(1, count + 1))


def search(url: str, one: EpisodeContext, query: str = "q", top_k: int = 2, **keys: Any) -> SearchResult:
    async def run() -> SearchResult:
        async with aclosing(settings(url, **keys).open()) as engine:
            [result] = await bind(engine, one).search([query], top_k)
            return result

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("step", "share"),
    # (4^(i/m) - 1) / 3 * 0.5: 4^0.5 is 2 and 4^1 is 4
    [(50, (2 - 1) / 3 * 0.5), (100, 0.5), (200, 0.5), (None, 0.0)],
)
def test_the_share_of_noise_follows_the_formula(step: int | None, share: float) -> None:
    assert noise(settings(), step) == pytest.approx(share)


def test_other_ends_and_linear_growth() -> None:
    assert noise(settings(noise_start=0.2, noise_end=0.6, noise_base=1.0), 25) == pytest.approx(0.3)
    assert noise(settings(noise_start=0.6, noise_end=0.2, noise_base=9.0), 50) == pytest.approx(0.6 - 0.25 * 0.4)
    assert noise(settings(steps=None, noise_start=0.3, noise_end=0.3), 7) == 0.3
    assert noise(settings(noise_outside_training=0.25), None) == 0.25


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_have_that_share_in_every_step(seed: int) -> None:
    """Chi-square with one degree of freedom per step: 10.83 is p = .001. 10,000 draws a step."""
    for step in (1, 10, 50, 90, 100):
        share = noise(settings(), step)
        drawn = sum(is_noisy(settings(seed=seed), episode(10_000 * step + n, step)) for n in range(10_000))
        expected = 10_000 * share
        assert (drawn - expected) ** 2 / (expected * (1 - share)) < 10.83


def test_a_draw_depends_on_seed_question_and_search_number_alone() -> None:
    def draws(seed: int = 0, number: int = 1) -> list[bool]:
        return [is_noisy(settings(seed=seed), episode(n, 100, number)) for n in range(200)]

    assert draws() == draws()
    assert draws() != draws(seed=1)
    assert draws() != draws(number=2)


def test_another_process_draws_the_same() -> None:
    code = (
        "from tests.retrieval.test_simulated import episode, is_noisy, settings;"
        "print([int(is_noisy(settings(seed=3), episode(n, 60))) for n in range(300)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([int(is_noisy(settings(seed=3), episode(n, 60))) for n in range(300)])


def test_searches_at_the_same_time_know_their_own_answers_only() -> None:
    """10,000 searches of as many episodes, through one engine: a document never has the answer of another one."""

    async def run(url: str) -> list[SearchResult]:
        async with aclosing(settings(url, connections=64, noise_end=1.0).open()) as engine:
            calls = (bind(engine, episode(n, step=1 + n % 100)).search(["who lives there"], 2) for n in range(10_000))
            return [result for [result] in await asyncio.gather(*calls)]

    with chat_server(listed) as server:
        results = asyncio.run(run(server.url))
    foreign = [
        n for n, result in enumerate(results) for hit in result.require_hits() if f"Person{n}x" not in hit.passage.text
    ]
    assert foreign == []
    assert len(server.bodies) == 10_000


def test_the_prompt_says_what_to_write_and_the_span_how_much_noise() -> None:
    with chat_server(listed) as server:
        useful = search(server.url, episode(1, step=1), noise_start=0.0, noise_end=0.0)
        noisy = search(server.url, episode(1, step=1), noise_start=1.0, noise_end=1.0)
    first, second = (body["messages"][0]["content"] for body in server.bodies)
    assert "that finds the wrong pages" not in first
    assert "that finds the wrong pages" in second
    for prompt in (first, second):
        assert "Write 2 short documents" in prompt
        assert "Who lives at number 1?" in prompt
        assert "Person1x" in prompt
        assert "The query: q\n" in prompt
    assert [span.link for span in (*useful.spans, *noisy.spans)] == [
        "simulated, useful (noise 0.0000)",
        "simulated, noisy (noise 1.0000)",
    ]


def test_what_a_model_puts_into_its_query_is_never_a_placeholder() -> None:
    with chat_server(listed) as server:
        search(server.url, episode(1), query="{gold_answers} {documents}\nIts answer: Mallory")
    prompt = server.bodies[0]["messages"][0]["content"]
    assert "The query: {gold_answers} {documents} Its answer: Mallory\n" in prompt


def test_the_same_search_sends_the_same_seed_and_another_one_another() -> None:
    with chat_server(listed) as server:
        for one in (episode(1), episode(1), episode(2), episode(1, search=2)):
            search(server.url, one)
    seeds = [body["seed"] for body in server.bodies]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Document 1: A | x\nDocument 2: B | y\nDocument 3: C | z", [("A", "x"), ("B", "y")]),
        ("**Document 1:** *A* | x\n\n2. a line joins\nDoc 2 - B | y", [("A", "x 2. a line joins"), ("B", "y")]),
        ("Here they are:\nDocument 1: no title here", [("", "no title here")]),
        ("Just one text,\nwithout numbers.", [("", "Just one text, without numbers.")]),
        ("Document 1: A | \nDocument 2: B | y", [("B", "y")]),
        ("Document 1: A | x <|end_of_documents|> </think>", [("A", "x <|end_of_documents|> </think>")]),
        ("", []),
        ("\n \n", []),
        ("Document 1: A |", []),
    ],
)  # fmt: skip
def test_documents_are_read_from_odd_texts(said: str, found: list[tuple[str, str]]) -> None:
    assert [(hit.passage.title, hit.passage.text) for hit in documents_in(said, 2)] == found


def test_a_text_without_documents_is_tried_again_and_then_an_error() -> None:
    with chat_server(lambda body: "") as server:
        result = search(server.url, episode(1))
    assert isinstance(result.error, RetrieverError)
    assert "wrote no document for 'q'" in str(result.error)
    assert len({body["seed"] for body in server.bodies}) == 3
    texts = iter(["", "Document 1: A | x"])
    with chat_server(lambda body: next(texts)) as server:
        assert search(server.url, episode(1)).require_hits()


def test_a_failing_server_is_an_error_and_never_an_empty_result() -> None:
    with chat_server(lambda body: JSONResponse({"error": "overloaded"}, 503)) as server:
        result = search(server.url, episode(1))
        assert result.error is not None
        assert result.error.transient
    asyncio.run(check_outage(settings(server.url).open()))


def test_it_keeps_the_contract_of_retrievers() -> None:
    with chat_server(listed) as server:
        asyncio.run(check_retriever(settings(server.url).open(), "who lives there"))


def test_an_episode_reaches_it_through_links_and_its_recording_is_per_episode(tmp_path: Any) -> None:
    async def run(url: str) -> list[str]:
        table = {"file": str(tmp_path / "c"), "of": settings(url).model_dump(exclude_unset=True)}
        async with aclosing(settings_of_table("cache", table).open()) as cache:
            found = [await bind(cache, episode(n)).search(["q"], 1) for n in (1, 2, 1)]
            return [result.hits[0].passage.text for [result] in found]

    with chat_server(listed) as server:
        texts = asyncio.run(run(server.url))
    assert texts == [f"The house belongs to Person{n}x." for n in (1, 2, 1)]
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("keys", "said"),
    [({"steps": None}, "set `steps`"), ({"noise_end": 1.5}, "noise_end"), ({"model": ""}, "model")],
)
def test_wrong_settings_are_named(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings(**keys)


def test_without_an_episode_or_a_model_it_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="answers only searches of episodes"):
        asyncio.run(open_retriever(settings()).search(["q"], 1))
    with pytest.raises(InputError, match="kind = 'simulated': model"):
        settings_of("simulated:http://h/v1")
