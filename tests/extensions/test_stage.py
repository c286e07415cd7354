"""SFT and a stage with a protocol, a format rule, a retriever and a reward part of other packages, exactly as
CONTRIBUTING.md has them."""

import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from r1searcher.common.files import read_rows
from r1searcher.episodes.protocol import Document, EpisodeProtocol, Query
from r1searcher.episodes.trajectory import Author
from tests import extension
from tests.engine import toy
from tests.extensions import test_protocol, test_retriever, test_reward

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

protocol = test_protocol.protocol  # fixtures
package = test_protocol.package

PASSAGES = [
    {"id": town, "title": town, "text": f"{town} is in {region}."} for town, region in toy.towns_and_regions().items()
]


def test_sft_and_a_stage_learn_search_and_judge_with_them(
    package: Path, protocol: EpisodeProtocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, blocks, module, points in (
        ("search", test_retriever.BLOCKS, "my_retriever", "toml"),
        ("reward", test_reward.BLOCKS, "my_reward", "my_reward.toml"),
    ):
        entry_points = tomllib.loads(blocks[points])["project"]["entry-points"]
        where = extension.install(tmp_path / name, {module: blocks[f"{module}.py"]}, entry_points, name)
        monkeypatch.setenv("PYTHONPATH", extension.environment(where)["PYTHONPATH"])
    monkeypatch.setenv("PYTHONPATH", extension.environment(package)["PYTHONPATH"])

    world = toy.make_world(tmp_path / "world", protocol.tags)
    toy.write_rows(
        world.folder / "traces.jsonl", [traced(protocol, *pair) for pair in toy.towns_and_regions().items()] * 40
    )
    passages = test_retriever.write(world.folder / "passages.jsonl", PASSAGES)
    settings = tomllib.loads(world.settings.read_text("utf-8"))
    settings["episode"] |= {"protocol": "brackets", "max_new_tokens": 24}
    settings["reward"] = {"format_rules": ["no_thought"], "parts": test_reward.PARTS}
    settings["retrieval"] = {"url": f"mine:{passages}"}
    world.settings.write_text(tomli_w.dumps(settings))
    world.run("sft", str(world.settings), "--name", "sft")
    run = world.stage1("stage1", "--steps", "1")

    [metrics] = read_rows(run.metrics)
    episodes = [row for file in sorted(run.trajectories(1).iterdir()) for row in read_rows(file)]
    assert len(episodes) == 64
    assert {row["protocol"] for row in episodes} == {"brackets"}
    assert sum(bool(row["searches"]) for row in episodes) / 64 == pytest.approx(metrics["retrieval"])
    assert metrics["retrieval"] > 0, "traces of an SFT with this protocol teach a model to search"
    assert 0 < metrics["format/no_thought"] <= 1
    for row in episodes:
        assert protocol.opening == ""
        assert row["segments"][0]["text"].endswith(f"{row['question']}")
        for search, turn in zip(row["searches"], turns(row), strict=False):
            assert protocol.read_turn(turn) == Query(search["query"])
    found = Counter(segment["author"] for row in episodes for segment in row["segments"])
    assert found["environment"] > 0

    assert json.loads(run.manifest.read_text())["index"]["name"] == str(passages)
    for search in (search for row in episodes for search in row["searches"]):
        # The model invents queries too: each has what the class finds for it.
        asked = words_of(search["query"])
        scores = [len(asked & words_of(row["text"])) for row in PASSAGES]
        expected = [PASSAGES[scores.index(max(scores))]["title"]] if max(scores) else []
        assert [hit["title"] for hit in search["hits"]] == expected

    assert 0 <= metrics["reward/short_answer"] <= 0.5
    for row in episodes:
        assert row["parts"].keys() == {"f1", "short_answer"}
        assert row["reward"] == pytest.approx(sum(row["parts"].values()))
        assert row["parts"]["short_answer"] in (0.0, 0.5)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def traced(protocol: EpisodeProtocol, town: str, region: str) -> dict[str, Any]:
    """A trace that searches for the town and answers with its region."""
    document = protocol.render([Document(town, f"{town} is in {region}.")])
    segments = [
        (Author.PROMPT, f"Where is {town}?"),
        (Author.MODEL, protocol.write_query("", town)),
        (Author.ENVIRONMENT, document),
        (Author.MODEL, protocol.write_answer("", region)),
    ]
    return {"segments": segments}


def turns(row: dict[str, Any]) -> list[str]:
    """What the model said, up to each turn's stop string."""
    return [
        segment["text"][: len(segment["text"]) - segment.get("overhang", 0)]
        for segment in row["segments"]
        if segment["author"] == "model"
    ]
