"""A protocol and a format rule of somebody else, exactly as CONTRIBUTING.md has them, in commands that run episodes."""

import importlib.util
import io
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from r1searcher.common import terminal
from r1searcher.common.files import read_rows
from r1searcher.demo.world import make_world
from r1searcher.episodes.contract import check_protocol
from r1searcher.episodes.protocol import EpisodeProtocol, Query
from r1searcher.episodes.trajectory import StopReason
from tests import extension
from tests.evaluation.conftest import index, questions, serve, tokenizer_folder  # noqa: F401  # fixtures
from tests.extension import finished

BLOCKS = extension.blocks("Add a protocol") | extension.blocks("Add a format rule")
OPTIONS = ("--set", "episode.protocol=brackets")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("my_protocol", "my_rules_of_format")
    entry_points = [tomllib.loads(BLOCKS[f"{name}.toml"])["project"]["entry-points"] for name in names]
    modules = {name: BLOCKS[f"{name}.py"] for name in names}
    return extension.install(tmp_path_factory.mktemp("site"), modules, entry_points[0] | entry_points[1])


@pytest.fixture(scope="module")
def protocol(package: Path) -> EpisodeProtocol:
    spec = importlib.util.spec_from_file_location("my_protocol", package / "my_protocol.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.BRACKETS
    assert isinstance(found, EpisodeProtocol)
    return found


def test_a_protocol_takes_at_most_60_lines() -> None:
    assert extension.code_lines(BLOCKS["my_protocol.py"]) <= 60


def test_it_keeps_the_contract(protocol: EpisodeProtocol) -> None:
    check_protocol(protocol, texts=600)


@pytest.fixture
def searcher(serve: Any, tokenizer_folder: Path) -> str:  # noqa: F811
    """The URL of a server whose model searches for the question once and answers with the first word that it found."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("/models"):
            return 200, {"data": [{"id": "rule", "root": str(tokenizer_folder)}]}
        assert body["stop"] == ["[/search]", "[/answer]", "[found]"]
        asked = tokenizer.decode(body["prompt"]).rpartition("Question: ")[2]
        question, _, found = asked.partition("\n[found]\n")
        if found:
            text = f" It is [answer] {found.split(': ')[1].split()[0]} [/answer]"
        else:
            text = f" Let me see. [search] {question.strip()} [/search]"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        choice = {"token_ids": ids, "text": text, "finish_reason": "stop", "stop_reason": text.split()[-1]}
        return 200, {"choices": [choice]}

    return str(serve(answer).url)


def test_evaluate_and_score_read_episodes_with_it(
    package: Path,
    tmp_path: Path,
    searcher: str,
    index: Path,  # noqa: F811
    questions: Path,  # noqa: F811
) -> None:
    words = ["evaluate", searcher, "--dataset", str(questions), "--retriever", str(index), "--to", str(tmp_path / "e")]
    finished(extension.r1s([*words, *OPTIONS, "--set", "model.chat_template=false"], package))
    report = json.loads((tmp_path / "e" / "report.json").read_text("utf-8"))["datasets"]["capitals"]
    assert [report[name]["value"] for name in ("em", "format", "searches")] == [1, 1, 1]
    rows = list(read_rows(tmp_path / "e" / "predictions.jsonl"))
    assert {row["protocol"] for row in rows} == {"brackets"}
    assert rows[0]["segments"][0]["text"].startswith("Think, and search with [search] keywords [/search]")
    assert rows[0]["segments"][0]["text"].endswith("Question: What is the capital of Norway?")

    scores = finished(extension.r1s(["score", str(tmp_path / "e" / "predictions.jsonl"), "--json"], package))
    assert [json.loads(scores)[name]["value"] for name in ("em", "format")] == [1, 1]
    without = extension.r1s(["score", str(tmp_path / "e" / "predictions.jsonl")], tmp_path)
    assert without.returncode == 2
    assert "protocol must be an installed protocol: r1-searcher" in " ".join(without.stderr.split())
    assert "Traceback" not in without.stderr


def test_ask_runs_an_episode_with_it(package: Path, searcher: str, index: Path) -> None:  # noqa: F811
    words = ["ask", "What is the capital of Peru?", "--model", searcher, "--retriever", str(index)]
    assert finished(extension.r1s([*words, *OPTIONS, "--set", "model.chat_template=false"], package)) == "Lima\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--set", "episode.protocol=bracket"), "there is no protocol 'bracket' (did you mean 'brackets'?)"),
        ((*OPTIONS, "--set", "model.prompt=base"), "the prompts of the protocol brackets are chat, bare, chatml"),
        ((*OPTIONS, "--set", "reward.recipe=released-qwen"), "judge only the tags of r1-searcher"),
        ((*OPTIONS, "--set", 'reward.format_rules=["no_thoughts"]'), "did you mean 'no_thought'?"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(
    *,
    package: Path,
    tmp_path: Path,
    searcher: str,
    index: Path,  # noqa: F811
    questions: Path,  # noqa: F811
    options: tuple[str, ...],
    sentence: str,
) -> None:
    words = ["evaluate", searcher, "--dataset", str(questions), "--retriever", str(index), "--to", str(tmp_path / "e")]
    done = extension.r1s([*words, *options, "--set", "model.chat_template=false"], package)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


JUDGED = """
import json
from r1searcher.config.settings import load
from r1searcher.evaluation.predictions import from_text
from r1searcher.rewards.measures import measure
from r1searcher.runs.resolved import reward_of
for rules in [], ["no_thought"]:
    reward = reward_of(load("stage1", overrides={"reward.format_rules": rules}), "stage1")
    for thought in "", "I know it. ":
        episode = from_text("What is the capital of Norway?", ("Oslo",), thought + "</think><answer>Oslo</answer>")
        broken = [name for name in measure(episode, 10, tuple(rules)) if name.startswith("format/")]
        print(json.dumps([reward(episode).parts["format"], broken]))
"""


def test_a_format_rule_is_judged_where_the_settings_name_it(package: Path) -> None:
    judged = [json.loads(line) for line in finished(extension.python(JUDGED, package, cwd=package)).splitlines()]
    assert judged == [[0.5, []], [0.5, []], [0.0, ["format/no_thought"]], [0.5, []]]


def test_the_demo_writes_traces_in_it(protocol: EpisodeProtocol, tmp_path: Path) -> None:
    world = make_world(tmp_path / "world", 7, terminal.console(file=io.StringIO()), protocol)
    traces = list(read_rows(world / "traces.jsonl"))
    searching = [segments for trace in traces if len(segments := trace["segments"]) > 2]
    assert len(searching) == len(traces) / 2
    for segments in searching:
        authors, texts = zip(*segments, strict=True)
        assert authors == ("prompt", *("model", "environment") * (len(segments) // 2 - 1), "model")
        assert all(isinstance(protocol.read_turn(text), Query) for text in texts[1:-1:2])
        assert all(text.startswith("\n[found]\n") for text in texts[2::2])
        assert protocol.read_turn(texts[-1]) is StopReason.ANSWERED
    make_world(world, 7, terminal.console(file=io.StringIO()))
    assert "[found]" not in (world / "traces.jsonl").read_text("utf-8"), "a world of another protocol is replaced"
