"""The demo's world on disk: written once per seed, complete or written again."""

import io
import json
from pathlib import Path

import pytest

from r1searcher.common import terminal
from r1searcher.demo.run import CONTRAST, PLAN, DemoRequest
from r1searcher.demo.world import make_world
from r1searcher.questions.named import open_dataset
from r1searcher.questions.traces import read_traces
from r1searcher.retrieval.indexing.manifest import is_index


def said() -> terminal.SafeConsole:
    return terminal.console(file=io.StringIO())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("demo") / "world", 7, said())


def test_every_file_of_the_world_can_be_read_by_the_stages(world: Path) -> None:
    train, held_out = (
        open_dataset(str(world / f"{name}.jsonl"), strict=True).questions for name in ("train", "held_out")
    )
    assert {q.hops for q in train} == {q.hops for q in held_out} == {1, 2}
    assert not {q.text for q in train} & {q.text for q in held_out}
    assert len(list(read_traces(world / "traces.jsonl"))) == 720
    passages = [json.loads(line) for line in (world / "passages.jsonl").open()]
    assert len(passages) == 1000
    assert is_index(world / "index")


def test_a_finished_world_is_left_alone_and_one_of_another_seed_is_replaced(world: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in world.glob("*.json*")}
    console = said()
    make_world(world, 7, console)
    assert {path.name: path.read_bytes() for path in world.glob("*.json*")} == before
    assert console.file.getvalue() == "", "nothing is announced"
    other = make_world(tmp_path / "world", 8, said())
    assert (other / "train.jsonl").read_bytes() != before["train.jsonl"]
    make_world(other, 7, said())
    assert {path.name: path.read_bytes() for path in other.glob("*.json*")} == before


def test_each_part_starts_from_the_model_of_an_earlier_one() -> None:
    for plan in (PLAN, CONTRAST):
        for number, part in enumerate(plan):
            assert (part.start is None) == (number == 0)
            assert part.start in (None, *(earlier.name for earlier in plan[:number]))


def test_the_contrast_keeps_its_own_summary() -> None:
    assert DemoRequest(output=Path("o")).file("summary.json") == Path("o/summary.json")
    assert DemoRequest(output=Path("o"), contrast=True).file("curve.png") == Path("o/curve-contrast.png")
