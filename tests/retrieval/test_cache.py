"""The recording of searches: what is asked once, what replay answers, many processes, and files of another kind."""

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from r1searcher.errors import FileError, InputError, RetrieverError
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import EpisodeContext, Retriever, SearchResult, bind
from r1searcher.retrieval.contract import check_retriever
from r1searcher.retrieval.links.cache import Cache, Replay, Settings
from tests.retrieval.scripted import Bound, Scripted

RANKINGS = {"q": [("a", 2.5), ("b", 1.0)], "none": [], "bad": RetrieverError("refused")}


def settings(file: Path, **keys: object) -> Settings:
    return Settings.model_validate({"of": "index", "file": str(file), **keys})


def ids(results: list[SearchResult]) -> list[list[str]]:
    return [[hit.passage.id for hit in result.hits] for result in results]


async def searched(retriever: Retriever, *queries: str, top_k: int = 2) -> list[SearchResult]:
    try:
        return await retriever.search(queries, top_k)
    finally:
        await retriever.aclose()


def test_what_is_recorded_is_not_asked_again_even_after_a_restart(tmp_path: Path) -> None:
    engine = Scripted(RANKINGS)
    first = asyncio.run(searched(Cache(engine, settings(tmp_path / "c")), "q", "none", "q"))
    assert engine.asked == [["q", "none"]]
    again = asyncio.run(searched(Cache(engine, settings(tmp_path / "c")), "none", "q"))
    assert engine.asked == [["q", "none"]]
    assert ids(first) == [["a", "b"], [], ["a", "b"]]
    assert [result.hits for result in again] == [(), first[0].hits]
    assert [span.cached for result in again for span in result.spans] == [True, True]
    asyncio.run(searched(Cache(engine, settings(tmp_path / "c")), "q", top_k=1))
    assert engine.asked[1:] == [["q"]]


def test_errors_are_not_recorded(tmp_path: Path) -> None:
    engine = Scripted(RANKINGS)
    for _ in range(2):
        bad, good = asyncio.run(searched(Cache(engine, settings(tmp_path / "c")), "bad", "q"))
        assert str(bad.error) == "refused"
        assert len(good.hits) == 2
    assert engine.asked == [["bad", "q"], ["bad"]]


def test_replay_opens_nothing_and_a_miss_is_an_error(tmp_path: Path) -> None:
    recorded = Cache(Scripted(RANKINGS), settings(tmp_path / "c"))
    before = asyncio.run(searched(recorded, "q", "none"))
    replay = open_retriever(f"http://127.0.0.1:9/retrieve -> cache:replay:{tmp_path / 'c'}")
    [missing] = asyncio.run(searched(replay, "q"))
    assert "has no recorded search for 'q' from http://127.0.0.1:9/retrieve" in str(missing.error)  # another chain
    after = asyncio.run(searched(settings(tmp_path / "c", mode="replay").open(), "q", "none", "q2"))
    assert [result.hits for result in after[:2]] == [result.hits for result in before]
    assert isinstance(after[2].error, RetrieverError)
    assert not after[2].error.transient


def test_refresh_asks_again_and_replaces(tmp_path: Path) -> None:
    asyncio.run(searched(Cache(Scripted(RANKINGS), settings(tmp_path / "c")), "q"))
    new = Scripted({"q": [("z", 1.0)]})
    asyncio.run(searched(Cache(new, settings(tmp_path / "c", mode="refresh")), "q"))
    assert new.asked == [["q"]]
    assert ids(asyncio.run(searched(Replay(settings(tmp_path / "c", mode="replay")), "q"))) == [["z"]]


def test_searches_for_the_same_at_the_same_time_ask_once(tmp_path: Path) -> None:
    engine = Scripted(RANKINGS)

    async def run() -> list[list[SearchResult]]:
        cache = Cache(engine, settings(tmp_path / "c"))
        found = await asyncio.gather(*(cache.search(["q"], 2) for _ in range(50)))
        await cache.aclose()
        return found

    assert all(ids(one) == [["a", "b"]] for one in asyncio.run(run()))
    assert engine.asked == [["q"]]


def test_a_failure_reaches_everyone_who_waits_and_nothing_is_kept(tmp_path: Path) -> None:
    class Down(Scripted):
        async def search(self, queries: object, top_k: int) -> list[SearchResult]:
            self.asked.append([])
            await asyncio.sleep(0.01)
            raise RetrieverError("no connection", transient=True)

    async def run() -> list[BaseException | list[SearchResult]]:
        cache = Cache(Down({}), settings(tmp_path / "c"))
        return await asyncio.gather(*(cache.search(["q"], 2) for _ in range(5)), return_exceptions=True)

    assert {str(outcome) for outcome in asyncio.run(run())} == {"no connection"}
    assert ids(asyncio.run(searched(Cache(Scripted(RANKINGS), settings(tmp_path / "c")), "q"))) == [["a", "b"]]


def test_an_engine_that_needs_the_episode_is_recorded_per_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "needs_episode", True)

    def episode(id_: str, search: int) -> EpisodeContext:
        return EpisodeContext(id=id_, question="?", gold_answers=(id_,), step=1, search=search)

    async def run(open_: Callable[[], Retriever]) -> list[list[str]]:
        retriever = open_()
        calls = [bind(retriever, episode(id_, n)).search(["q"], 1) for id_ in "xy" for n in (1, 2)]
        found = [ids(results)[0] for results in await asyncio.gather(*calls)]
        await retriever.aclose()
        return found

    expected = [["x-1"], ["x-2"], ["y-1"], ["y-2"]]
    assert asyncio.run(run(lambda: Cache(Bound({}), settings(tmp_path / "c")))) == expected
    assert asyncio.run(run(lambda: Replay(settings(tmp_path / "c", mode="replay")))) == expected


def _record(file: str, name: str) -> None:
    rankings = {f"q{n}": [(f"{name}-{n}", 1.0)] for n in range(100)}
    asyncio.run(searched(Cache(Scripted(rankings), settings(Path(file))), *rankings))


def test_processes_that_record_the_same_searches_all_return_the_first_recorded(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_record, args=(str(tmp_path / "c"), name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    kept = asyncio.run(searched(Replay(settings(tmp_path / "c", mode="replay")), *(f"q{n}" for n in range(100))))
    late = asyncio.run(searched(Cache(Scripted({}), settings(tmp_path / "c")), *(f"q{n}" for n in range(100))))
    assert ids(kept) == ids(late)
    assert all(len(one) == 1 and one[0].endswith(f"-{n}") for n, one in enumerate(ids(kept)))


def test_files_that_are_no_recording_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist: record it first"):
        settings(tmp_path / "c", mode="replay").open()
    (tmp_path / "text").write_text("not a database at all" * 100)
    with pytest.raises(InputError, match="is not a recording of searches"):
        Cache(Scripted({}), settings(tmp_path / "text"))
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE x (y)")
    for mode in ("record", "replay"):
        with pytest.raises(InputError, match="is not a recording of searches"):
            (Replay if mode == "replay" else lambda s: Cache(Scripted({}), s))(settings(tmp_path / "other", mode=mode))
    with pytest.raises(FileError, match="cannot be used"):
        Cache(Scripted({}), settings(tmp_path / "no folder" / "c"))


@pytest.mark.parametrize("hits", ["[{}]", "{", '[{"id": "a", "title": "t", "text": "x", "score": NaN}]', '"x"'])
def test_a_recorded_row_from_outside_is_checked(tmp_path: Path, hits: str) -> None:
    asyncio.run(searched(Cache(Scripted(RANKINGS), settings(tmp_path / "c")), "q"))
    with sqlite3.connect(tmp_path / "c") as file:
        file.execute("UPDATE searches SET hits = ?", (hits,))
    with pytest.raises(InputError, match="is damaged"):
        asyncio.run(searched(Replay(settings(tmp_path / "c", mode="replay")), "q"))


def test_health_of_a_replay_is_that_of_the_recording(tmp_path: Path) -> None:
    async def health(retriever: Retriever) -> tuple[int | None, str]:
        said = await retriever.health()
        await retriever.aclose()
        return said.passages, said.fingerprint

    assert asyncio.run(health(Cache(Scripted(RANKINGS, "e"), settings(tmp_path / "c")))) == (10, "fingerprint of e")
    passages, before = asyncio.run(health(Replay(settings(tmp_path / "c", mode="replay"))))
    assert passages == 10
    asyncio.run(searched(Cache(Scripted(RANKINGS), settings(tmp_path / "c")), "q"))
    assert asyncio.run(health(Replay(settings(tmp_path / "c", mode="replay"))))[1] != before


def test_a_recorded_index_keeps_the_contract(wikipedia_index: Path, tmp_path: Path) -> None:
    asyncio.run(check_retriever(open_retriever(f"{wikipedia_index} -> cache:{tmp_path / 'c'}"), "Norway"))
