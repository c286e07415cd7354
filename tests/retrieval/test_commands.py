"""The commands as a user runs them, each in a separate process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def r1s(*arguments: object, stdin: bytes = b"", env: dict[str, str] | None = None) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "r1searcher.cli", *map(str, arguments)]
    done = subprocess.run(
        command, input=stdin, capture_output=True, env={**os.environ, "COLUMNS": "200", **(env or {})}
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("commands") / "corpus.jsonl"
    towns = [("Oslo", "Norway"), ("Rome", "Italy"), ("Lima", "Peru")]
    rows = [
        {"id": n, "title": town, "text": f"{town} is the capital of {land}."} for n, (town, land) in enumerate(towns)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no row\n")
    return path


@pytest.fixture(scope="module")
def index(corpus: Path) -> Path:
    path = corpus.parent / "ix"
    code, out, err = r1s("index-corpus", corpus, "--to", path)
    assert (code, out) == (0, "")
    assert f"{path} contains 3 passages." in err
    assert "The index needs about" in err
    assert f"1 row was rejected, with the reasons in {path}.rejects.jsonl." in err
    return path


def test_rejects_hold_line_and_reason(index: Path) -> None:
    (reject,) = map(json.loads, Path(f"{index}.rejects.jsonl").read_text().splitlines())
    assert (reject["line"], reject["row"]) == (4, "no row")


def test_search_prints_passages(index: Path) -> None:
    code, out, _ = r1s("search", index, "capital of Peru", "--top-k", 1)
    assert code == 0
    assert "1  Lima" in out
    assert "Lima is the capital of Peru." in out
    assert "Rome" not in out
    assert r1s("search", index, "unheard")[1].strip() == "No passage matches."


def test_search_json_is_a_line_a_query_and_nothing_else(index: Path, tmp_path: Path) -> None:
    (tmp_path / "queries").write_text("Rome\n\nunheard\ncapital\n", encoding="utf-8")
    code, out, _ = r1s("search", index, "--queries", tmp_path / "queries", "--top-k", 2, "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [[id_ for id_, _ in row] for row in rows] == [["1"], [], [], ["0", "1"]]
    assert (
        r1s("search", index, "--queries", "-", "--top-k", 2, "--json", stdin=b"Rome\n")[1] == out.splitlines()[0] + "\n"
    )


def test_a_line_of_queries_ends_at_a_line_feed_only(index: Path, tmp_path: Path) -> None:
    (tmp_path / "queries").write_text("Rome\u2028Italy\x85capital\nLima\n", encoding="utf-8")
    code, out, _ = r1s("search", index, "--queries", tmp_path / "queries", "--top-k", 1, "--json")
    assert code == 0
    assert [json.loads(line)[0][0] for line in out.splitlines()] == ["1", "2"]


def test_search_shows_control_characters_and_markup_of_passages_and_queries(tmp_path: Path) -> None:
    row = {"id": "\x1b[2J[red]\x9b", "title": "[bold]Oslo[/x] \x1b]0;t\x07", "text": "a \x1b[31mtown\x9b2J :smile: [/]"}
    (tmp_path / "corpus.jsonl").write_text(json.dumps(row) + "\n")
    assert r1s("index-corpus", tmp_path / "corpus.jsonl", "--to", tmp_path / "ix")[0] == 0
    (tmp_path / "queries").write_text("oslo \x1b[5m [/red]\n")
    for options in ((), ("--json",)):
        code, out, err = r1s("search", tmp_path / "ix", "--queries", tmp_path / "queries", *options)
        assert (code, err) == (0, "")
        assert not set(out) & {"\x1b", "\x9b", "\x07"}
        assert "[red]" in out
    assert "[bold]Oslo[/x]" in r1s("search", tmp_path / "ix", "oslo")[1]


@pytest.mark.parametrize("top_k", ["0", "-1", "1001", "x", str(10**30)])
def test_more_passages_than_the_limit_are_a_usage_error(index: Path, top_k: str) -> None:
    code, out, err = r1s("search", index, "Rome", "--top-k", top_k)
    assert (code, out) == (2, "")
    assert "--top-k" in err


def test_a_corpus_comes_through_a_pipe(tmp_path: Path, corpus: Path) -> None:
    code, _, err = r1s("index-corpus", "-", "--to", tmp_path / "piped", "--limit", 2, stdin=corpus.read_bytes())
    assert code == 0
    assert "contains 2 passages" in err


def test_recall(index: Path, tmp_path: Path) -> None:
    questions = [
        {"question": "What is the capital of Peru?", "answer": "Lima"},
        {"question": "Capital of Italy or of Norway?", "golden_answers": ["Bern", "the Rome"]},
        {"question": "Which town is the capital of Norway?", "answer": "Os"},
        {"question": "Is Rome a capital?", "answer": "yes"},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    code, out, _ = r1s("recall", index, "--dataset", tmp_path / "q.jsonl", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["questions"], result["skipped_yes_no"]) == (3, 1)
    assert list(result["at"]) == ["1", "3", "5", "10"]
    assert result["at"]["3"]["recall"] == pytest.approx(2 / 3), "`Os` is not in `Oslo`"
    low, high = result["at"]["3"]["interval"]
    assert 0 <= low <= 2 / 3 <= high <= 1
    code, out, _ = r1s("recall", index, "--dataset", tmp_path / "q.jsonl")
    assert "66.7%" in out
    assert "3 questions; 1 more with yes or no" in out


def test_recall_takes_the_names_that_evaluate_takes(index: Path, tmp_path: Path) -> None:
    (tmp_path / "bamboogle.jsonl").write_text(
        '{"question": "What is the capital of Peru?", "answer": "Lima"}\n{"question": "Capital?", "answer": ""}\n'
    )
    code, out, err = r1s("recall", index, "--dataset", "bamboogle", "--data-dir", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["at"]["1"]["recall"] == 1.0
    assert "bamboogle: 1 unusable row skipped, the first in line 2" in err
    code, out, err = r1s("recall", index, "--dataset", "nq", "--data-dir", tmp_path)
    assert (code, out) == (2, "")
    assert "does not contain nq:test" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("search", "nowhere", "x"), "There is no index nowhere: create it with `r1s index-corpus FILE --to nowhere`."),
        (("search", "{index}"), "Give one query"),
        (("search", "{index}", "--queries", "nowhere"), "the file of queries nowhere does not exist"),
        (("index-corpus", "nowhere", "--to", "x"), "There is no corpus nowhere"),
        (("index-corpus", "{corpus}", "--to", "{index}"), "already contains an index"),
        (("index-corpus", "{corpus}", "--to", "{new}", "--bad-rows", "0"), "line 4: not JSON"),
        (("index-corpus", "{corpus}", "--to", "{new}", "--format", "xml"), "no corpus format 'xml'"),
        (("index-corpus", "{corpus}", "--to", "{new}", "--k1", "0.9"), "k1 1.2 and b 0.75 only"),
        (("index-corpus", "{corpus}", "--to", "{new}", "--b", "2"), "b is 2.0: it must be between 0 and 1"),
        (("index-corpus", "{corpus}", "--to", "{new}", "--title-weight", "-1"), "it must be more than 0"),
        (("index-corpus", "{corpus}", "--to", "{new}", "--analyzer", "x"), "no analyzer 'x'"),
        (("index-corpus", "{corpus}", "--to", "http://h:1/retrieve"), "cannot be filled"),
        (("recall", "{index}", "--dataset", "nowhere"), "there is no dataset 'nowhere': give a file of questions"),
        (("recall", "{index}", "--dataset", "bambogle"), "did you mean bamboogle?"),
        (("recall", "{index}", "--dataset", "{corpus}"), "holds passages, not questions"),
        (("recall", "{index}", "--dataset", "{index}"), "is a folder: give a file"),
        (("recall", "{index}", "--dataset", ""), "there is no dataset ''"),
        (("search", "{index}", "--queries", "{folder}"), "is a folder"),
        (("search", "{index}", "--queries", "{binary}"), "is not UTF-8 text (byte 1)"),
        (("serve", "nowhere"), "There is no index nowhere"),
        (("serve", "{index}", "--host", ""), "--host is empty"),
        (("serve", "{index}", "--host", "no such host"), "is not an address or a name of this machine"),
        (("serve", "{index}", "--allowed-host", "http://a.example"), "is not a host name"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    corpus: Path, index: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    ranks = {"corpus": corpus, "index": index, "new": tmp_path / "new", "folder": tmp_path}
    ranks["binary"] = tmp_path / "binary"
    code, out, err = r1s(*(argument.format(**ranks) for argument in arguments))
    assert (code, out) == (2, "")
    assert sentence in err.splitlines()[-1]


def test_a_named_corpus_that_was_brought_is_used(tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    env = {"R1S_CACHE": str(tmp_path)}
    brought = tmp_path / "corpora" / "wiki-18.jsonl.gz"
    brought.write_text('{"id": "0", "contents": "\\"Oslo\\"\\nA town."}\n')
    code, _, err = r1s("index-corpus", "wiki-18", "--to", tmp_path / "ix", env=env)
    assert code == 0
    assert "contains 1 passages" in err
