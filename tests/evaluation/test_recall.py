"""Recall of retrievers: ranks, intervals, times and costs, and which questions a corpus can answer.

Expectations are worked out on paper, or with the standard library from what the command writes.
"""

import asyncio
import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from r1searcher.common import terminal
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.evaluation.corpus_answers import AnswerSearch, search_corpus
from r1searcher.evaluation.recall import Recall, Search, first_rank, measurable, measure
from r1searcher.evaluation.recall_command import named_retrievers
from r1searcher.questions.question import Question
from r1searcher.report.intervals import Interval
from r1searcher.report.recall_plot import Curve, draw_recall, require_plots, save_recall
from r1searcher.retrieval.base import Hit, SearchResult, Span
from r1searcher.retrieval.engines import bm25
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.bm25 import build
from tests.common.http_server import http_server
from tests.retrieval.scripted import Bound, Scripted

TOWNS = [("Oslo", "Norway"), ("Rome", "Italy"), ("Lima", "Peru"), ("Quito", "Ecuador")]
CORPUS = [Passage(str(n), town, f"{town} is the capital of {land}.") for n, (town, land) in enumerate(TOWNS)]


def asked(text: str, *gold_answers: str) -> Question:
    return Question(text, text, gold_answers)


def recalled(*ranks: int | None) -> Recall:
    return Recall(tuple(Search(rank, 0.001, 0.0, False) for rank in ranks))


def r1s(*arguments: object, folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "r1searcher.cli", "recall", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=folder, timeout=120)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class TestRanks:
    async def test_the_rank_is_that_of_the_first_passage_with_any_gold_answer(self) -> None:
        engine = Scripted({"a": [("x", 2.0), ("y", 1.0)], "b": [(str(n), 1.0) for n in range(10)], "c": []})
        questions = [asked("a", "nothing", "text of Y"), asked("b", "Title 9"), asked("c", "x")]
        recall = await measure(engine, questions)
        assert [search.rank for search in recall.searches] == [2, 10, None]
        assert engine.asked == [["a"], ["b"], ["c"]], "one query per call: the time is that of one search"

    def test_yes_or_no_questions_are_left_out(self) -> None:
        questions = [asked("a", "yes"), asked("b", "No."), asked("c", "True"), asked("d", "no", "Norway")]
        assert measurable(questions) == questions[3:]

    async def test_the_episode_is_that_of_the_question(self) -> None:
        """An engine that answers with the gold answer of its episode answers every question with its own."""
        questions = [asked(f"q{n}", f"gold{n}") for n in range(20)]
        recall = await measure(Bound({}), questions, concurrency=7)
        assert [search.rank for search in recall.searches] == [1] * 20

    async def test_no_more_searches_at_a_time_than_requested_and_each_with_its_own_result(self) -> None:
        class Slow(Scripted):
            running = most = 0

            async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
                self.running += 1
                self.most = max(self.most, self.running)
                await asyncio.sleep(0.001 * (int(queries[0]) % 5))  # they finish in another order
                self.running -= 1
                return await super().search(queries, top_k)

        rankings = {str(n): [(str(n), 1.0)] if n % 3 else [("other", 2.0), (str(n), 1.0)] for n in range(30)}
        engine = Slow(rankings)
        recall = await measure(engine, [asked(str(n), f"Title {n}") for n in range(30)], concurrency=4)
        assert [search.rank for search in recall.searches] == [1 if n % 3 else 2 for n in range(30)]
        assert engine.most == 4

    async def test_costs_and_recordings_come_from_all_spans_of_a_search(self) -> None:
        class Paid(Scripted):
            async def search(self, queries: Sequence[str], top_k: int) -> list[SearchResult]:
                spans = (Span("web", 1.0, 0.002), Span("summary", 1.0, 0.003), Span("cache", 0.0, cached=True))
                return [SearchResult((), spans=spans if query == "a" else ()) for query in queries]

        recall = await measure(Paid({}), [asked("a", "x"), asked("b", "x")])
        assert recall.usd_per_1000 == pytest.approx(2.5)
        assert recall.cached == 1

    async def test_a_failed_search_is_an_error_and_not_a_miss(self) -> None:
        engine = Scripted({"a": [], "b": RetrieverError("broken")})
        with pytest.raises(RetrieverError, match="broken"):
            await measure(engine, [asked("a", "x"), asked("b", "x")], concurrency=2)


class TestFigures:
    def test_means_of_known_ranks(self) -> None:
        recall = recalled(1, 2, 4, 10, None)
        means = {m: recall.mean(m).value for m in ("recall@1", "recall@3", "recall@5", "recall@10")}
        assert means == {"recall@1": 0.2, "recall@3": 0.4, "recall@5": 0.6, "recall@10": 0.8}
        assert recall.mean("MRR@10").value == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10) / 5)
        chosen = [False, True, False, True, True]
        assert recall.mean("recall@3", chosen).value == pytest.approx(1 / 3)
        assert recall.mean("MRR@10", chosen).value == pytest.approx((1 / 2 + 1 / 10) / 3)

    @pytest.mark.parametrize(("found", "n"), [(60, 200), (5, 40), (39, 40)])
    def test_the_interval_of_a_share_has_the_quantiles_of_a_binomial(self, found: int, n: int) -> None:
        """The mean of a resample of zeros and ones has exactly that distribution."""
        share = found / n
        total, quantiles = 0.0, []
        for k in range(n + 1):
            total += math.comb(n, k) * share**k * (1 - share) ** (n - k)
            if len(quantiles) < 2 and total >= (0.025, 0.975)[len(quantiles)]:
                quantiles.append(k / n)
        mean = recalled(*[1] * found, *[None] * (n - found)).mean("recall@1")
        assert (mean.low, mean.high) == pytest.approx(quantiles, abs=1.01 / n)

    def test_the_difference_is_that_of_pairs(self) -> None:
        """Both find half of the questions. Paired, the interval is far narrower than that of independent samples."""
        first = recalled(*[1] * 100, *[None] * 100)
        second = recalled(*[1] * 100, *[1] * 8, *[None] * 92)
        difference = second.difference(first, "recall@1")
        assert (difference.value, difference.better, difference.worse) == (pytest.approx(0.04), 8, 0)
        chance = random.Random(5)
        pairs = [0.0] * 192 + [1.0] * 8
        means = sorted(statistics.fmean(chance.choices(pairs, k=200)) for _ in range(4000))
        assert (difference.low, difference.high) == pytest.approx((means[100], means[3899]), abs=0.0101)
        assert difference.significant
        assert not recalled(1, None, 1).difference(recalled(None, 1, 1), "recall@1").significant

    @pytest.mark.parametrize("n", [2, 3, 20, 101])
    def test_quantiles_of_times(self, n: int) -> None:
        chance = random.Random(n)
        seconds = [chance.expovariate(10) for _ in range(n)]
        recall = Recall(tuple(Search(1, one, 0.0, False) for one in seconds))
        assert recall.milliseconds(0.5) == pytest.approx(1000 * statistics.median(seconds))
        expected = statistics.quantiles(seconds, n=20, method="inclusive")[18]
        assert recall.milliseconds(0.95) == pytest.approx(1000 * expected)


WORD = st.sampled_from(["the", "a", "new", "york", "New", "oslo", "os", "lo", "u", "s", "route", "22", "É", "é", "yes"])
GAP = st.sampled_from([" ", "-", "_", ". ", "  ", "\n", "’", "\u00a0", ""])
TEXT = st.lists(st.tuples(WORD, GAP), max_size=8).map(lambda parts: "".join(word + gap for word, gap in parts))
GOLD_ANSWER = st.one_of(TEXT, st.sampled_from(["True", "False", "the", "", "New York", "U.S. Route 22"]))


class TestCorpus:
    @given(
        st.lists(st.tuples(TEXT, TEXT), max_size=8),
        st.lists(st.lists(GOLD_ANSWER, min_size=1, max_size=3), min_size=1, max_size=6),
    )
    def test_the_pass_agrees_with_ranking_the_whole_corpus(
        self, texts: list[tuple[str, str]], answers: list[list[str]]
    ) -> None:
        """The slow definition: a question is answerable if the corpus as one long list of hits has a rank for it."""
        passages = [Passage(f"p{n}", title, text) for n, (title, text) in enumerate(texts, 1)]
        search = AnswerSearch([asked("q", *gold) for gold in answers])
        for passage in passages:
            search.read(passage)
        ranks = [first_rank(gold, [Hit(passage, 1.0) for passage in passages]) for gold in answers]
        assert search.first == [f"p{rank}" if rank else None for rank in ranks]

    @pytest.mark.parametrize(
        ("title", "text", "answer", "contained"),
        [
            ("Oslo", "A town.", "oslo", True),
            ("Oslo", "A town.", "Os", False),  # no whole word
            ("New", "York is a city.", "New York", True),  # title and text are one text
            ("", "The song of New-York!", "the new york", True),  # articles and punctuation
            ("", "York, New", "New York", False),  # another order
            ("", "new new york", "new york", True),  # a start that is repeated
            ("", "It is in U.S. Route 22", "US Route 22", False),  # punctuation separates
            ("", "anything", "the", False),  # an answer of no words
        ],
    )
    def test_what_a_passage_contains(self, title: str, text: str, answer: str, contained: bool) -> None:
        search = AnswerSearch([asked("q", answer)])
        search.read(Passage("1", title, text))
        assert search.first == (["1"] if contained else [None])

    def test_answers_that_share_words_and_questions_that_share_answers(self) -> None:
        questions = [asked("1", "University of Oslo"), asked("2", "University of Rome", "Rome"), asked("3", "Rome")]
        search = AnswerSearch([*questions, asked("4", "University")])
        for id_, text in [("a", "Rome"), ("b", "a university"), ("c", "University of Rome, university of Oslo")]:
            search.read(Passage(id_, "", text))
        assert search.first == ["c", "a", "a", "b"]

    def test_an_index_has_the_passages_of_its_corpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        passages = [Passage(f"id{n}", f"T{n}", f"word{n} é\n{n % 3}") for n in range(25)]
        build(passages, tmp_path / "ix", commit_every=4)  # several segments
        monkeypatch.setattr(bm25, "_PASSAGES_AT_ONCE", 7)
        assert list(EmbeddedIndex(tmp_path / "ix").passages()) == passages

    def test_rows_that_are_not_passages_are_counted(self, tmp_path: Path) -> None:
        file = tmp_path / "c.jsonl"
        file.write_text('{"id": 1, "title": "Oslo", "text": "x"}\n' + "no row\n" * 150)
        found = search_corpus(str(file), [asked("q", "Oslo"), asked("r", "Rome")], terminal.console(stderr=True))
        assert (found.passages, found.bad_rows, found.first) == (1, 150, ("1", None))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of capitals, an index of it and one of its first two passages, and questions."""
    folder = tmp_path_factory.mktemp("recall")
    rows = [{"id": p.id, "title": p.title, "text": p.text} for p in CORPUS]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(CORPUS, folder / "all")
    build(CORPUS[:2], folder / "half")
    questions = [
        {"id": "no", "question": "What is the capital of Norway?", "answer": "Oslo"},
        {"id": "it", "question": "What is the capital of Italy?", "answer": "Rome"},
        {"id": "pe", "question": "What is the capital of Peru?", "answer": "Lima"},
        {"id": "ec", "question": "What is the capital of Ecuador?", "answer": "Quito"},
        {"id": "se", "question": "What is the capital of Sweden?", "golden_answers": ["Stockholm"]},
        {"id": "yn", "question": "Is Rome a capital?", "answer": "yes"},
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    return folder


class TestCommand:
    def test_retrievers_side_by_side_with_the_corpus(self, world: Path, tmp_path: Path) -> None:
        output = tmp_path / "new" / "recall.json"
        arguments = ("some=half", "all", "both=half + all -> fusion", "--dataset", "q.jsonl")
        code, out, err = r1s(*arguments, "--exhaustive", "corpus.jsonl", "--output", output, "--json", folder=world)
        assert code == 0, err
        found = json.loads(out)
        assert (found["questions"], found["skipped_yes_no"]) == (5, 1)
        assert list(found["retrievers"]) == ["some", "all", "both"]
        assert found["at"] == found["retrievers"]["some"]["at"]
        recall = {name: [at["recall"] for at in one["at"].values()] for name, one in found["retrievers"].items()}
        assert recall["some"] == [0.4] * 4, "Oslo and Rome"
        assert recall["all"] == [0.8] * 4
        assert recall["both"] == [0.4, 0.8, 0.8, 0.8], "Lima is third: the others are in both rankings"
        assert found["retrievers"]["all"]["minus_first"]["recall@10"]["value"] == pytest.approx(0.4)
        assert "minus_first" not in found["retrievers"]["some"]
        assert (found["corpus"]["passages"], found["corpus"]["answerable"]) == (4, 4)
        assert found["corpus"]["unanswerable"]["value"] == pytest.approx(0.2), "Stockholm"
        assert found["retrievers"]["all"]["answerable"]["at"]["1"]["recall"] == 1.0
        assert found["retrievers"]["some"]["answerable"]["at"]["1"]["recall"] == 0.5
        assert "some searches 2 passages, corpus.jsonl has 4." in err
        written = json.loads(output.read_text())
        assert {key: written[key] for key in found} == found
        self.recomputed(written)

    def recomputed(self, written: Mapping[str, Any]) -> None:
        """All figures again, from the rows alone."""
        rows = written["rows"]
        assert [row["id"] for row in rows] == ["no", "it", "pe", "ec", "se"]
        assert [row["first_passage"] for row in rows] == ["0", "1", "2", "3", None]
        for name, one in written["retrievers"].items():
            ranks = [row["searches"][name]["rank"] for row in rows]
            for k, at in one["at"].items():
                assert at["recall"] == statistics.fmean(rank is not None and rank <= int(k) for rank in ranks)
                assert at["interval"][0] <= at["recall"] <= at["interval"][1]
            assert one["mrr"]["value"] == pytest.approx(statistics.fmean(1 / rank if rank else 0 for rank in ranks))
            times = [row["searches"][name]["ms"] for row in rows]
            assert one["ms"]["median"] == pytest.approx(statistics.median(times))
            assert one["usd_per_1000"] == 0

    def test_the_tables(self, world: Path) -> None:
        arguments = ("half", "all", "--dataset", "q.jsonl", "--exhaustive", "all")
        code, out, _ = r1s(*arguments, folder=world)
        assert code == 0
        lines = [line.split() for line in out.splitlines()]
        assert [line[1:6] for line in lines if line[:1] == ["half"]] == [
            ["40.0%"] * 5,  # every answer that is found is in the first passage
            ["50.0%"] * 5,  # of the answerable
        ]
        assert [line[1:6] for line in lines if line[:1] == ["all"]] == [["80.0%"] * 5, ["+40.0%"] * 5, ["100.0%"] * 5]
        text = " ".join(out.split())
        assert "5 questions; 1 more with yes or no as answer are left out" in text
        assert "20.0% (0.0% to 60.0%) of the questions have no gold answer in any of the 4 passages of all." in text
        assert "Of the other 4:" in text
        assert "$" not in text, "no search has a cost"

    def test_a_retriever_that_finds_what_the_corpus_does_not_have(self, world: Path, tmp_path: Path) -> None:
        (tmp_path / "other.jsonl").write_text('{"id": "1", "title": "Oslo", "text": ""}\n')
        code, _, err = r1s("all", "--dataset", "q.jsonl", "--exhaustive", tmp_path / "other.jsonl", folder=world)
        assert code == 0
        assert "all found answers of 3 questions that are in no passage of" in err

    def test_a_file_of_retrievers(self, world: Path, tmp_path: Path) -> None:
        config = tmp_path / "retrievers.toml"
        config.write_text('half = "half"\n[both]\nkind = "fusion"\nof = ["half", {kind = "bm25", url = "all"}]\n')
        code, out, err = r1s("all", "--config", config, "--dataset", "q.jsonl", "--json", folder=world)
        assert code == 0, err
        assert list(json.loads(out)["retrievers"]) == ["all", "half", "both"]

    @pytest.mark.parametrize("suffix", [".png", ".svg"])
    def test_a_plot(self, world: Path, tmp_path: Path, suffix: str) -> None:
        pytest.importorskip("matplotlib")
        file = tmp_path / f"plot{suffix}"
        assert r1s("all", "x=half", "--dataset", "q.jsonl", "--plot", file, folder=world)[0] == 0
        assert file.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
        code, _, err = r1s("all", "--dataset", "q.jsonl", "--plot", file, folder=world)
        assert code == 2
        assert "exists: remove it, or choose another file with --plot" in err

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "Give at least one retriever"),
            (("all", "all"), "two retrievers are named all: give each another name with NAME=URL"),
            (("all", "nowhere"), "There is no index nowhere"),
            (("all", "x=nowhere -> pagess"), "'pagess' after -> is not a link"),
            (("all", "--plot", "plot.jpg"), "the name must end in one of .png, .svg, .pdf"),
            (("all", "--exhaustive", "nowhere.jsonl"), "nowhere.jsonl"),
            (("all", "--exhaustive", "q.jsonl"), "holds questions and not passages"),
            (("all", "--output", "corpus.jsonl"), "choose another file with --output"),
            (("--config", "nowhere.toml"), "the file of retrievers nowhere.toml does not exist"),
            (("--config", "corpus.jsonl"), "corpus.jsonl is not valid TOML"),
        ],
    )
    def test_bad_input_is_an_error_before_any_search(self, world: Path, arguments: tuple[str, ...], said: str) -> None:
        code, out, err = r1s(*arguments, "--dataset", "q.jsonl", folder=world)
        assert (code, out) == (2, ""), err
        assert said in " ".join(err.split())

    def test_costs_of_the_web_and_searches_from_a_recording(self, world: Path, tmp_path: Path) -> None:
        async def answer(request: Request) -> Response:
            results = [{"title": "Oslo", "url": "https://example.org/oslo", "content": "The capital.", "score": 1.0}]
            return JSONResponse({"query": "", "number_of_results": 1, "results": results})

        with http_server([Route("/search", answer)]) as address:
            web = f'[web]\nkind = "web"\nurl = "web:searxng:{address}"\ncost_usd = 0.002\n'
            (tmp_path / "paid.toml").write_text(web)
            cache = f'[cache]\nkind = "cache"\nfile = "{tmp_path}/searches.sqlite"\n'
            (tmp_path / "cached.toml").write_text(cache + web.replace("[web]", "[cache.of]"))
            code, out, err = r1s("--config", tmp_path / "paid.toml", "all", "--dataset", "q.jsonl", folder=world)
            assert code == 0, err
            rows = {line.split()[0]: line.split() for line in out.splitlines()[2:6] if line.strip()}
            assert (rows["web"][1], rows["web"][-1], rows["all"][-1]) == ("20.0%", "2.00", "0.00")
            for cost, cached in ((2.0, 0), (0.0, 5)):
                arguments = ("--config", tmp_path / "cached.toml", "--dataset", "q.jsonl", "--json")
                code, out, err = r1s(*arguments, folder=world)
                found = json.loads(out)["retrievers"]["cache"]
                assert (found["usd_per_1000"], found["cached"]) == (pytest.approx(cost), cached)
                assert ("cache: 5 of 5 searches are from a recording" in err) == bool(cached)

    def test_a_server_that_fails_once_is_asked_again_and_one_that_refuses_ends_the_command(
        self, world: Path, tmp_path: Path
    ) -> None:
        seen: list[str] = []

        async def retrieve(request: Request) -> Response:
            (query,) = (await request.json())["queries"]
            seen.append(query)
            if "Italy" in query and seen.count(query) == 1:
                return JSONResponse({"detail": "busy"}, 503)
            if "Peru" in query and refuses:
                return JSONResponse({"detail": "no"}, 400)
            row = {"document": {"id": "1", "contents": '"Rome"\nx'}, "score": 1.0}
            return JSONResponse({"result": [[row]]})

        refuses = False
        output = tmp_path / "out.json"
        with http_server([Route("/retrieve", retrieve, methods=["POST"])]) as address:
            arguments = ("all", f"server={address}/retrieve", "--dataset", "q.jsonl", "--output", output, "--json")
            code, out, err = r1s(*arguments, folder=world)
            assert code == 0, err
            assert json.loads(out)["retrievers"]["server"]["at"]["1"]["recall"] == 0.2
            assert "server: waiting for the search engine" in err
            refuses = True
            output.unlink()
            code, out, err = r1s(*arguments, folder=world)
            assert (code, out) == (1, "")
            assert "400" in err
            assert not output.exists()


class TestNames:
    def test_only_a_plain_name_before_the_first_equals_sign_is_a_name(self) -> None:
        urls = ["http://h/retrieve?a=b", "a/x=y", "i + http://h/retrieve?x=1 -> fusion"]
        named = named_retrievers(["my-index.2=index", *urls], None)
        assert [engine.shown for engine in named.values()][1:] == list(named)[1:]
        assert [engine.url for engine in named.values()] == ["index", *urls[:2], "fusion"]
        assert next(iter(named)) == "my-index.2"

    def test_a_password_is_not_part_of_a_name(self) -> None:
        (name,) = named_retrievers(["http://user:secret@h/retrieve"], None)
        assert "secret" not in name

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "at least one retriever"),
            ("a = 3", "a: must be"),
            ('[a]\nkind = "nothing"', "a: "),
            ('[a]\nkind = "bm25"\nurl = "x"\nmore = 1', "a: "),
            ('a = "ftp://x"', "ftp://x is not a retriever"),
            ("a = [" * 3000, "not valid TOML"),
            ("a = " + "9" * 5000, "not valid TOML: an integer is too long"),
        ],
    )
    def test_a_wrong_file_of_retrievers(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "r.toml").write_text(text)
        with pytest.raises(InputError, match=said):
            named_retrievers([], tmp_path / "r.toml")


class TestPlot:
    def test_every_retriever_has_its_points_and_intervals(self) -> None:
        pytest.importorskip("matplotlib").use("Agg")
        from matplotlib import pyplot

        means = {k: Interval(k / 20, k / 25, k / 10) for k in (1, 3, 5, 10)}
        curves = [Curve(name, means, ms, 3 * ms) for name, ms in [("_a $x$", 1.0), ("b\x1b[2J", 40.0)]]
        figure = draw_recall(curves, "title")
        left, right = figure.axes
        (line, _, (bars,)) = left.containers[0]
        assert list(line.get_ydata()) == [0.05, 0.15, 0.25, 0.5]
        assert [tuple(segment[:, 1]) for segment in bars.get_segments()] == [
            pytest.approx((mean.low, mean.high)) for mean in means.values()
        ]
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [r"_a \$x\$", "b␛[2J"]
        assert [float(one[0].get_xdata()[0]) for one in right.containers] == [1.0, 40.0]
        assert right.get_xscale() == "log", "120 ms and 1 ms"
        pyplot.close(figure)

    def test_one_retriever_in_every_format(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        curve = Curve("a", {1: Interval(0.0, 0.0, 0.0), 10: Interval(1.0, 1.0, 1.0)}, 2.0, 2.0)
        for suffix in (".png", ".svg", ".pdf"):
            require_plots(tmp_path / f"x{suffix}")
            save_recall([curve], tmp_path / f"x{suffix}", "t" * 100)
            assert (tmp_path / f"x{suffix}").stat().st_size > 1000

    def test_a_missing_package_is_named_with_its_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(InputError, match=r"pip install 'r1searcher\[plot\]'"):
            require_plots(Path("x.png"))
