"""Several hundred bad inputs: commands, and what is wrong with their input.

A case is a command line in a copy of a small working world with one broken thing in it. Cases are products of commands
with shapes (a file's content) and kinds (what is at a path), so that a new command or a new shape is one line here.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEEP = 100_000
DIGITS = 5_000

SHAPES: dict[str, bytes] = {
    "empty": b"",
    "blank lines": b"\n\n \n",
    "null": b"null\n",
    "number": b"3\n",
    "string": b'"x"\n',
    "true": b"true\n",
    "array": b"[]\n",
    "array of arrays": b"[[1, 2], [3]]\n",
    "array of numbers": b"[1, 2, 3]\n",
    "object": b"{}\n",
    "unknown keys": b'{"foo": 1, "bar": [2]}\n',
    "cut": b'{"question": "Who',
    "cut after a row": b'{"foo": 1}\n{"question": "Wh',
    "deep arrays": b"[" * DEEP,
    "deep arrays, closed": b"[" * DEEP + b"]" * DEEP + b"\n",
    "deep objects": b'{"a":' * DEEP,
    "long integer": b'{"id": ' + b"1" * DIGITS + b"}\n",
    "long integer alone": b"1" * DIGITS,
    "NaN": b'{"id": NaN, "question": "q", "answer": NaN}\n',
    "Infinity": b"-Infinity\n",
    "not UTF-8": b'{"question": "\xff\xfe"}\n',
    "UTF-16": '{"question": "q", "answer": "a"}\n'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf",
    "NUL bytes": b"\0" * 64,
    "lone surrogate": b'{"\\ud800": "\\udfff"}\n',
    "HTML": b"<!doctype html><html><body>404</body></html>\n",
    "CSV": b"id,question,answer\n1,q,a\n",
    "gzip magic": b"\x1f\x8b\x08\x00garbage",
    "zstd magic": b"\x28\xb5\x2f\xfdgarbage",
    "escape sequences": b"\x1b]0;x\x07\x1b[2J\xc2\x9b31m\n",
    "keys with the wrong types": b'{"id": [], "question": 3, "answer": {}, "gold_answers": 7,'
    b'"segments": "x", "text": []}\n',
    "null everywhere": b'{"id": null, "question": null, "golden_answers": null, "prediction": null, "text": null}\n',
    "trajectory of the wrong shape": b'{"question": "q", "gold_answers": ["a"], "stop": "x", "segments": [3]}\n',
    "trace of the wrong shape": b'{"segments": [["model"], [1, 2], null]}\n',
    "TOML of the wrong types": b'model = 3\n[rl]\nsteps = "x"\nbatch_size = [1]\nkl_coef = nan\n',
}
"""Contents of a file that should be JSON, JSON lines or TOML."""

OURS = ("empty", "null", "array", "object", "cut", "deep arrays", "long integer", "not UTF-8", "NUL bytes", "HTML",
        "keys with the wrong types", "unknown keys")  # fmt: skip
"""Shapes for files that only we write."""


@dataclass(frozen=True)
class Case:
    name: str
    words: tuple[str, ...]
    breaks: Callable[[Path], None] = lambda folder: None
    """Called with the copy of the world that the command runs in."""

    said: str = ""
    """Part of the sentence, if only one is right."""


def content(path: str, data: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)

    return write


# What is at a path that a command gets; each function takes the world's folder and creates `bad` there.
def _folder(folder: Path) -> None:
    (folder / "bad").mkdir()


def _full_folder(folder: Path) -> None:
    (folder / "bad").mkdir()
    (folder / "bad" / "mine.txt").write_text("mine")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "bad")


def _loop(folder: Path) -> None:
    (folder / "bad").symlink_to("bad")


def _dangling(folder: Path) -> None:
    (folder / "bad").symlink_to("nowhere")


def _file(folder: Path) -> None:
    (folder / "bad").write_text("mine")


KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "missing": ("bad", lambda folder: None),
    "folder": ("bad", _folder),
    "pipe": ("bad", _pipe),
    "loop of links": ("bad", _loop),
    "dangling link": ("bad", _dangling),
    "below a file": ("bad/below", _file),
    "name of 300 bytes": ("x" * 300, lambda folder: None),
    "path of 5,000 bytes": ("x/" * 2500, lambda folder: None),
    "no name": ("", lambda folder: None),
    "current folder": (".", lambda folder: None),
    "device": ("/dev/null", lambda folder: None),
    "escape sequence": ("\x1b[2J\x9b\u202e", lambda folder: None),
    "markup": ("[bold]x[/nope]", lambda folder: None),
    "lone surrogate": ("a\udcff", lambda folder: None),
}

STAGE = ("stage1", "settings.toml")
EVALUATE = ("evaluate", "http://127.0.0.1:9/v1", "--retriever", "index", "--set", "retrieval.retry_timeout_s=0.1")
BOOTSTRAP = ("--retriever", "index", "--to", "new.jsonl", "--model", "model", "--set", "model.chat_template=false")
READERS: dict[str, tuple[str, ...]] = {
    "score": ("score", "{}"),
    "compare": ("compare", "predictions.jsonl", "{}", "--json"),
    "recall": ("recall", "index", "--dataset", "{}"),
    "retrievers of recall": ("recall", "--config", "{}", "--dataset", "questions.jsonl"),
    "evaluate": (*EVALUATE, "--dataset", "{}"),
    "index-corpus": ("index-corpus", "{}", "--to", "new-index"),
    "settings of stage1": ("stage1", "{}"),
    "settings of sft": ("sft", "{}"),
    "data.train": (*STAGE, "--name", "new", "--data", "{}"),
    "data.held_out": (*STAGE, "--name", "new", "--set", "data.held_out={}", "--set", "rl.questions_per_step=1000"),
    "questions of bootstrap": ("data", "bootstrap", "{}", *BOOTSTRAP),
    "questions of split": ("data", "split", "{}", "--part", "a=1", "--to", "new"),
    "questions of merge": ("data", "merge", "{}", "--to", "new.jsonl"),
    "questions of select": ("data", "select", "{}", "--to", "new", "--model", *EVALUATE[1:]),
    "data.traces": ("sft", "settings.toml", "--name", "new", "--set", "data.traces={}"),
}
"""Commands that read a file from outside; {} is its path."""

PATHS: dict[str, tuple[str, ...]] = {
    **READERS,
    "queries": ("search", "index", "--queries", "{}"),
    "index of search": ("search", "{}", "q"),
    "index of serve": ("serve", "{}", "--port", "0"),
    "index of recall": ("recall", "{}", "--dataset", "questions.jsonl"),
    "corpus of recall": ("recall", "index", "--dataset", "questions.jsonl", "--exhaustive", "{}"),
    "index of evaluate": ("evaluate", "http://127.0.0.1:9/v1", "--dataset", "questions.jsonl", "--retriever", "{}"),
    "index of ask": ("ask", "q", "--model", "http://127.0.0.1:9/v1", "--retriever", "{}"),
    "index of a stage": (*STAGE, "--name", "new", "--retriever", "{}"),
    "--from": (*STAGE, "--name", "new", "--from", "{}"),
    "prompt": (*STAGE, "--name", "new", "--set", "model.prompt={}"),
    "model of a stage": (*STAGE, "--name", "new", "--model", "{}"),
    "model of evaluate": ("evaluate", "./{}", "--dataset", "questions.jsonl", "--retriever", "index"),
    "data folder": (*EVALUATE, "--dataset", "bamboogle", "--data-dir", "{}"),
    "folder of the release": ("data", "r1-searcher", "--to", "new", "--from", "{}"),
}
"""Commands that read from a given path."""

ASKED = ("recall", "evaluate", "questions of split", "questions of merge")
"""Commands that take any rows with questions and answers."""

FINE = {
    ("queries", "device"),
    ("prompt", "no name"),
    ("index-corpus", "no name"),
    ("index-corpus", "current folder"),
    ("index-corpus", "folder"),
    ("corpus of recall", "pipe"),
    ("index-corpus", "pipe"),  # waits for its writer, like every command that reads a pipe
    ("index-corpus", "CSV"),
    *((name, "no name") for name in ("data.held_out",)),
    *((name, shape) for name in ASKED for shape in ("CSV", "trajectory of the wrong shape")),
}
"""Products that are not bad input, or that another test covers."""

SETTINGS = (
    "rl.learning_rate=inf", "rl.learning_rate=nan", "rl.learning_rate=-1", "rl.learning_rate=0", "rl.learning_rate=7",
    "rl.learning_rate=\"1e-6\"", "rl.learning_rate=true", "rl.kl_coef=-inf", "rl.kl_coef=nan", "rl.kl_coef=-0.1",
    "rl.steps=0",
    "rl.steps=-1", "rl.steps=1.5", "rl.steps=4.0", "rl.steps=true", "rl.steps=" + "9" * 40, "rl.steps=" + "9" * DIGITS,
    "rl.steps=[1]", "rl.steps={}", "rl.steps=1979-05-27", "rl.steps=", "rl.batch_size=7", "rl.batch_size=0",
    "rl.questions_per_step=0", "rl.questions_per_step=10000000000", "rl.samples_per_question=-3",
    "rl.samples_per_question=1", "rl.algorithm=pppo", "rl.algorithm=3", "rl.lr_schedule=linear", "rl=3", "rl=[]",
    "rl.micro_batch_size=" + "1" * 30, "rl.nothing=1", "rl.steps.x=1", "nothing=1", "nothing.at.all=1", "=1", "x", "",
    ".=1",
    "a..b=1", "seed=-1", "seed=4294967296", "seed=9223372036854775808", "seed=1e3", "seed=true", "seed=\"7\"",
    "name=../../x", "name=..", "name=.", "name=a/b", "name=/abs", "name=" + "n" * 300, "name=\"a\\u0000b\"",
    "name=\"a\\nb\"", "name=\"\\u001b[2J\"", "name=\"\\u009b\"", "name=3", "name=a\udcff", "output=\"\"",
    "output=\" \"",
    "output=3", "output=\"a\\u0000\"", "output=/dev/null/x", "output=settings.toml", "episode.temperature=0",
    "episode.temperature=-1", "episode.temperature=inf", "episode.temperature=nan", "episode.temperature=1e9",
    "episode.max_context=100", "episode.max_context=" + "9" * 30, "episode.max_new_tokens=0", "episode.top_k=0",
    "episode.top_k=100000", "episode.max_searches=-1", "episode.max_document_words=0", "reward.recipe=papper",
    "reward.recipe=3", "reward.parts=[{name=\"f1\", weight=inf}]", "reward.parts=[{name=\"f1\", weight=nan}]",
    "reward.parts=[{name=\"f1\", if_zero=-inf}]", "reward.parts=[{name=\"f1\", if_zero=1e300}]",
    "reward.parts=[{name=\"partial_credit\", params={wrong=\"x\"}}]",
    "reward.parts=[{name=\"partial_credit\", params={wrong=nan}}]", "reward.parts=[{name=\"f1\", params={x=1}}]",
    "reward.parts=[{name=\"f1\", params=3}]", "reward.parts=[{name=\"nope\"}]",
    "reward.parts=[{name=\"f1\"}, {name=\"f1\"}]", "reward.parts=[{}]",
    "reward.parts=[3]", "reward.parts=3", "reward.parts=f1", "reward.max_answer_words=0", "stop.retrieval=1.5",
    "stop.retrieval=nan", "stop.retrieval=true", "stop.retrieval=\"0.9\"", "stop.retrieval_rate=0.9",
    "stop.format=-0.1", "stop.searches=-1", "stop.official_f1=0.5", "stop.=1", "stop.x\u0000=1", "stop.patience=0",
    "checkpoint.every=0", "checkpoint.keep=-1",
    "engine.device=tpu", "engine.gpus=0", "engine.gpus=" + "9" * 20, "engine.precision=fp64", "engine.zero_stage=4",
    "engine.async_steps=-1", "engine.async_steps=1001",
    "engine.gpu_memory_utilization=0", "engine.gpu_memory_utilization=nan", "engine.attention=flash_attention_2",
    "engine.vllm_kl_limit=0", "engine.vllm_kl_limit=inf", "evaluation.questions=-1", "retrieval.retry_timeout_s=0",
    "retrieval.retry_timeout_s=inf", "retrieval.url=\"\"", "retrieval.url=3", "retrieval.url=\"a\\u0000\"",
    "data.limit=0", "data.limit=true", "data.shuffle=1", "data.shuffle=yes", "data.train=\"\"", "data.train=[1]",
    "data.train=\"a\\u0000\"", "model.path=\"\"", "model.path=\"\\u0000\"", "model.path=\"\\u001b]0;x\\u0007\"",
    "model.path=3", "model.prompt=\"\"", "model.prompt=\"\\u0000\"", "model.chat_template=\"no\"",
    "model.reserved_tokens=2", "model=" + "[" * 5000, "model=\"\"\"a\nb\"\"\"",
)  # fmt: skip
"""Values of `--set`."""

URLS = (
    "http://", "http:///retrieve", "http://[", "http://[::1", "http://x:99999/retrieve", "http://x:port/retrieve",
    "http://127.0.0.1:9/retrieve", "http://127.0.0.1:9/queries", "http://127.0.0.1:9/nothing", "http://a b/retrieve",
    "http://\x1b[2J/retrieve", "http://user:secret@127.0.0.1:9/retrieve", "ftp://x/retrieve", "es://", "es:///name",
    "es://[/name", "es://127.0.0.1:9/", "es://127.0.0.1:port/name", "es://127.0.0.1:9/UPPER/and/more", "file:",
    "es://127.0.0.1:9/x?fields=", "es://127.0.0.1:9/x?\x1b[2J=1", "es://127.0.0.1:9/x?fields=a&template=nowhere.json",
    "opensearch://", "opensearch://user:secret@127.0.0.1:9/x", "opensearch://127.0.0.1:9/x?fields=a",
    "web:serper", "://", "http://" + "x" * 300 + "/retrieve", "http://x\udcff/retrieve",
)  # fmt: skip
URL_COMMANDS: dict[str, tuple[str, ...]] = {
    "search": ("search", "{}", "q"),
    "serve": ("serve", "{}", "--port", "0"),
    "recall": ("recall", "{}", "--dataset", "questions.jsonl"),
    "evaluate": ("evaluate", "http://127.0.0.1:9/v1", "--dataset", "questions.jsonl", "--retriever", "{}"),
}

FLAGS: tuple[tuple[str, ...], ...] = (
    ("nonsense",), ("--nonsense",), ("",), ("\x1b[2J",), ("[bold]",), ("score",), ("compare", "predictions.jsonl"),
    ("search",), ("search", "index"), ("search", "index", "q", "--queries", "queries.txt"),
    ("search", "index", "q", "--top-k", "0"), ("search", "index", "q", "--top-k", "x"),
    ("search", "index", "q", "--top-k", "9" * 30), ("serve", "index", "--port", "-1"),
    ("serve", "index", "--port", "70000"), ("serve", "index", "--workers", "0"), ("serve", "index", "--host", ""),
    ("serve", "index", "--host", "no such host"), ("serve", "index", "--host", "\x1b[2J"),
    ("serve", "index", "--host", "203.0.113.7", "--port", "0"), ("recall", "index"),
    ("recall", "--dataset", "questions.jsonl"), ("recall", "index", "index", "--dataset", "questions.jsonl"),
    ("recall", "index", "--dataset", "questions.jsonl", "--limit", "0"),
    ("recall", "index", "--dataset", "questions.jsonl", "--concurrency", "0"),
    ("recall", "index", "--dataset", "questions.jsonl", "--plot", "x.jpg"),
    ("recall", "index", "--dataset", "questions.jsonl", "--output", "corpus.jsonl"),
    ("recall", "index", "--dataset", "questions.jsonl", "--output", "corpus.jsonl/x"),
    ("recall", "index", "--dataset", "questions.jsonl", "--output", "x" * 300), ("evaluate", "m"), ("ask", "q"),
    ("ask", "q", "--model", "./nowhere", "--retriever", "index"), ("ask", "q", "--model", "run"),
    ("ask", "q", "--model", "", "--retriever", "index"), ("ask", "q", "--model", "http://", "--retriever", "index"),
    ("ask", "q", "--model", "a\x1b", "--retriever", "index"),
    ("ask", "q", "--model", "http://[", "--retriever", "index"),
    (*EVALUATE, "--dataset", "nothing"), (*EVALUATE, "--dataset", "questions.jsonl", "--dataset", "questions.jsonl"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--samples", "0"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--samples", "2", "--temperature", "0"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--temperature", "-1"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--temperature", "nan"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--temperature", "inf"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--concurrency", "0"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--limit", "0"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--seed", "-1"),
    (*EVALUATE, "--dataset", "questions.jsonl", "--set", "nonsense"),
    ("evaluate", "m", "--dataset", "questions.jsonl"), ("evaluate", "", "--dataset", "questions.jsonl"),
    ("index-corpus", "corpus.jsonl"), ("index-corpus", "corpus.jsonl", "--to", ""),
    ("index-corpus", "corpus.jsonl", "--to", "."), ("index-corpus", "corpus.jsonl", "--to", "/dev/null"),
    ("index-corpus", "corpus.jsonl", "--to", "corpus.jsonl"), ("index-corpus", "corpus.jsonl", "--to", "index"),
    ("index-corpus", "corpus.jsonl", "--to", "corpus.jsonl/x"), ("index-corpus", "corpus.jsonl", "--to", "x" * 300),
    ("index-corpus", "corpus.jsonl", "--to", "http://x/y"), ("index-corpus", "corpus.jsonl", "--to", "es://"),
    ("index-corpus", "corpus.jsonl", "--to", "es://127.0.0.1:9/x?fields=a"),
    ("index-corpus", "corpus.jsonl", "--to", "opensearch://127.0.0.1:9/x"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--format", "nope"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--analyzer", "klingon"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--k1", "nan"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--b", "inf"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--title-weight", "nan"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--title-weight", "-1"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--limit", "0"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--shards", "0"),
    ("index-corpus", "corpus.jsonl", "--to", "new", "--bad-rows", "-1"),
    ("index-corpus", "", "--to", "new"), ("stage1", "--preset", "nope"), ("stage1", "--preset", ""),
    ("stage1", "--preset", "../demo"), ("stage1", "--steps", "x"), ("stage1", "--seed", "9" * 30),
    ("stage1", "--from", ""), ("stage2", "--from", "nowhere"), ("train", "--steps", "3"), ("demo", "--seed", "-1"),
    ("demo", "--seed", "x"), ("demo", "--output", "settings.toml"), ("demo", "--output", "/dev/null/x"),
    ("demo", "--output", "x" * 300), ("demo", "--set", "nonsense"), ("init", "settings.toml"), ("init", ""),
    ("init", "."),
    ("init", "index"), ("init", "nowhere/x"), ("init", "settings.toml/x"), ("init", "x" * 300), ("init", "/dev/null/x"),
    ("init", "/dev/full"), ("score", "predictions.jsonl", "--judge", "http://["),
    ("score", "predictions.jsonl", "--judge", "http://"), ("score", "predictions.jsonl", "--judge", "nonsense"),
    ("score", "predictions.jsonl", "--judge", ""), ("score", "predictions.jsonl", "nowhere.jsonl"),
)  # fmt: skip

OUTPUTS = ("predictions.jsonl", "predictions.jsonl/x", "full", "/dev/null", "/dev/null/x", "x" * 300, "loop")
"""Values of `evaluate --to` that it cannot write to."""

RUN_FILES = {
    "manifest.json": b"", "config.toml": b"", "metrics.jsonl": b"", "launch.json": b"",
    "checkpoints/_actor/latest": b"", "summary.json": b"",
}  # fmt: skip
RUN_SHAPES: dict[str, dict[str, bytes]] = {
    "manifest.json": {"stage": b'{"stage": 3, "settings_sha256": []}',
                      "another run": b'{"stage": "stage2", "settings_sha256": "x"}'},
    "metrics.jsonl": {"step": b'{"step": "1"}\n', "negative": b'{"step": -1}\n',
                      "text": b'{"step": 1, "reward": "high"}\n', "huge": b'{"step": ' + b"9" * 60 + b"}\n",
                      "list": b'{"step": 1, "f1": [1]}\n'},
    "launch.json": {"not a mark": b'{"launch": ""}', "number": b'{"launch": 3}', "text": b'{"launch": "x"}'},
    "checkpoints/_actor/latest": {"word": b"latest", "number": b"global_stepx", "huge": b"global_step" + b"9" * DIGITS,
                                  "negative": b"global_step-1"},
    "summary.json": {"stage": b'{"stage": 3, "model": "m"}', "model": b'{"stage": "stage1", "model": null}'},
}  # fmt: skip
"""Wrong contents of a run folder's files."""

SERVED: dict[str, bytes] = {
    **{name: SHAPES[name] for name in ("empty", "null", "number", "string", "array", "object", "cut", "deep arrays",
                                       "long integer", "not UTF-8", "HTML", "array of numbers")},
    "result of the wrong type": b'{"result": 3, "answers": 3, "data": 3, "choices": 3}',
    "result of nulls": b'{"result": [null], "answers": [null], "data": [null], "choices": [null]}',
    "result of numbers": b'{"result": [[1]], "answers": [[1]], "data": [{"id": 3}], "choices": [{"message": 3}]}',
    "too many results": b'{"result": [[], [], []], "answers": [[], [], []], "data": [], "choices": []}',
    "NaN score": b'{"result": [[{"document": {"id": "1", "contents": "\\"T\\"\\nx"}, "score": NaN}]]}',
    "score of text": b'{"result": [[{"document": {"id": "1", "contents": "\\"T\\"\\nx"}, "score": "high"}]]}',
    "document of the wrong type": b'{"result": [[{"document": [], "score": 1}]], "answers": [[{}]]}',
    "choices without text": b'{"choices": [{"message": {"content": null}, "token_ids": ["x"], "finish_reason": 3}]}',
}  # fmt: skip
"""Response bodies with status 200."""

SERVER_COMMANDS: dict[str, tuple[str, ...]] = {
    "search by /retrieve": ("search", "{server}/retrieve", "q"),
    "search by /queries": ("search", "{server}/queries", "q"),
    "recall": ("recall", "{server}/retrieve", "--dataset", "questions.jsonl"),
    "a model": ("ask", "q", "--model", "{server}/v1", "--retriever", "index"),
}


def cases() -> Iterator[Case]:
    for command, words in READERS.items():
        for shape, data in SHAPES.items():
            if (command, shape) not in FINE:
                yield Case(f"{command}: {shape}", filled(words, "bad.jsonl"), content("bad.jsonl", data))
    for command, words in PATHS.items():
        for kind, (path, make) in KINDS.items():
            if (command, kind) not in FINE:
                yield Case(f"{command}: {kind}", filled(words, path), make)
    for number, setting in enumerate(SETTINGS):
        words = (("stage1", "stage2")[number % 2], "settings.toml", "--set", setting)
        yield Case(f"--set {ascii(setting)[:60]}", words)
    for command, words in URL_COMMANDS.items():
        for url in URLS:
            yield Case(f"{command}: {ascii(url)[:60]}", filled(words, url))
    for words in FLAGS:
        yield Case(f"flags: {ascii(' '.join(words))[:100]}", words)
    for to in OUTPUTS:
        yield Case(f"--to {to[:30]}", (*EVALUATE, "--dataset", "questions.jsonl", "--to", to), _outputs)
    for file in RUN_FILES:
        shapes = {**{name: SHAPES[name] for name in OURS}, **RUN_SHAPES.get(file, {})}
        for shape, data in shapes.items():
            if file == "metrics.jsonl" and shape in ("empty", "cut", "deep arrays", "NUL bytes"):
                continue  # no row, or one that a crash cut
            yield Case(f"run folder: {file}: {shape}", (*STAGE, "--name", "run"), content(f"runs/run/{file}", data))
        for kind in ("folder", "pipe"):
            yield Case(f"run folder: {file}: {kind}", (*STAGE, "--name", "run"), instead(f"runs/run/{file}", kind))
    for shape in OURS:
        damaged = content("runs/done/summary.json", SHAPES[shape])
        yield Case(f"--from: {shape}", ("stage2", "settings.toml", "--name", "new", "--from", "runs/done"), damaged)
        damaged = content("runs/done/config.toml", SHAPES[shape])
        if shape != "empty":  # all defaults
            words = ("evaluate", "runs/done", "--dataset", "questions.jsonl", "--retriever", "index")
            yield Case(f"config of an evaluated run: {shape}", words, damaged)
    yield from evaluation_cases()


def evaluation_cases() -> Iterator[Case]:
    words = (*EVALUATE, "--dataset", "questions.jsonl", "--to", "evaluation")
    row = {"dataset": "questions", "index": 0, "sample": 0, "seconds": 1.0, "reward": 0.0, "parts": {}, "question": "q"}
    whole = {**row, "gold_answers": ["a"], "stop": "answered", "segments": [], "searches": []}
    wrong: dict[str, Any] = {
        "index": "first", "sample": None, "dataset": 3, "seconds": "long", "parts": [], "gold_answers": "a",
        "stop": "x",
        "segments": {}, "searches": None, "question": [],
    }  # fmt: skip
    rows = {f"{key} is {value!r}": {**whole, key: value} for key, value in wrong.items()}
    rows["of another dataset"] = {**whole, "dataset": "other"}
    for name, changed in rows.items():
        yield Case(
            f"predictions: {name}", words, content("evaluation/predictions.jsonl", json.dumps(changed).encode() + b"\n")
        )
    for shape in OURS:
        yield Case(f"evaluation's manifest: {shape}", words, content("evaluation/manifest.json", SHAPES[shape]))
        if shape in ("empty", "cut", "deep arrays", "NUL bytes"):
            continue
        data = SHAPES[shape] if SHAPES[shape].endswith(b"\n") else SHAPES[shape] + b"\n"
        yield Case(f"predictions: {shape}", words, content("evaluation/predictions.jsonl", data))
        judged = (*words, "--judge", "http://127.0.0.1:9")
        yield Case(f"verdicts: {shape}", judged, content("evaluation/judge.jsonl", data))
    for file in ("manifest.json", "predictions.jsonl"):
        for kind in ("folder", "pipe", "loop of links"):
            yield Case(f"evaluation: {file}: {kind}", words, instead(f"evaluation/{file}", kind))


def served_cases() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Name, key of `SERVED`, command."""
    for command, words in SERVER_COMMANDS.items():
        for shape in SERVED:
            yield f"{command}: {shape}", shape, words


def filled(words: tuple[str, ...], path: str) -> tuple[str, ...]:
    return tuple(word.replace("{}", path) for word in words)


def instead(path: str, kind: str) -> Callable[[Path], None]:
    """Puts something else in a file's place."""

    def replace(folder: Path) -> None:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place.unlink()
        _, make = KINDS[kind]
        if kind == "loop of links":
            place.symlink_to(place.name)
            return
        make(folder)
        shutil.move(folder / "bad", place)

    return replace


def _outputs(folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    (folder / "loop").symlink_to("loop")
