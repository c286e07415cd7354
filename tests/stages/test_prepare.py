"""A stage is prepared from names: the demo model, and datasets in a folder. Everything but the training itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1searcher.checks import machine
from r1searcher.config.settings import Settings, load
from r1searcher.corpora.passage import Passage
from r1searcher.engine import topology
from r1searcher.engine.openrlhf.versions import ALLOW_UNTESTED
from r1searcher.errors import InputError
from r1searcher.models.demo import NAME
from r1searcher.planning import derive
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.manifest import is_index
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.resolved import read_run
from tests.engine.toy import make_model, write_rows

pytestmark = pytest.mark.training
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")


@pytest.fixture
def overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a small stage; what is cached as the demo model is a tiny one."""
    monkeypatch.setenv("R1S_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = make_model(tmp_path / "cache" / NAME)
    (model / "sizes.json").write_text(json.dumps({file.name: file.stat().st_size for file in model.iterdir()}))
    build([Passage("1", "Oslo", "Oslo is in Norway.")], tmp_path / "index")
    (tmp_path / "nq").mkdir()
    for split in ("train", "test"):
        rows = [{"id": f"{split}_{n}", "question": f"{split} {n}?", "golden_answers": ["Oslo"]} for n in range(4)]
        write_rows(tmp_path / "nq" / f"{split}.jsonl", rows)
    write_rows(tmp_path / "nq" / "dev.jsonl", [{"question": "Train 1", "golden_answers": ["Oslo"]}])
    return {
        "model.path": "demo",
        "model.prompt": "bare",
        "model.chat_template": False,
        "data.train": "nq",
        "data.held_out": "nq:dev",
        "data.folder": str(tmp_path),
        "retrieval.url": str(tmp_path / "index"),
        "episode.max_context": 128,
        "episode.max_new_tokens": 16,
        "rl.questions_per_step": 2,
        "rl.samples_per_question": 2,
        "rl.batch_size": 4,
        "engine.device": "cpu",
    }


def test_a_stage_from_names(overrides: dict[str, Any], tmp_path: Path) -> None:
    from r1searcher.stages.prepare import prepare_stage

    settings, run = load("stage1", None, None, overrides), RunFolder(tmp_path / "run")
    prepared = prepare_stage("stage1", settings, run)
    assert [q.id for q in prepared.questions] == [f"train_{n}" for n in range(4)]
    assert prepared.warnings == ("data.held_out: 1 question is in the training data too",)
    labels = [json.loads(json.loads(line)["label"])["question"] for line in run.questions.open()]
    assert sorted(labels) == [f"train {n}?" for n in range(4)]
    assert str(tmp_path / "cache" / NAME) in run.launch.read_text()
    assert 'path = "demo"' in run.config.read_text(), "a run is the same wherever the cache lies"
    assert prepare_stage("stage1", settings, run).resuming


def test_a_run_on_gpus_has_its_derived_settings_and_their_reasons(
    overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is the driver's list alone, which a test machine does not have."""
    from r1searcher.stages.prepare import prepare_stage

    for module in (topology, machine, derive):
        monkeypatch.setattr(module, "gpu_count", lambda: 1)
    monkeypatch.setenv(ALLOW_UNTESTED, "1")
    own = {"model.path": str(tmp_path / "cache" / NAME), "engine.device": "gpu", "engine.gpu_memory": 80}
    settings, run = load("stage1", None, None, {**overrides, **own}), RunFolder(tmp_path / "run")
    prepared = prepare_stage("stage1", settings, run)
    assert "engine.colocate = true: a card needs " in prepared.derived[0]
    _, written = read_run(run)
    assert written.engine.colocate
    assert written.engine.gpu_memory_utilization == 0.9, "the most, beside a model of a megabyte"
    assert json.loads(run.manifest.read_text())["derived"] == list(prepared.derived)
    assert "--train.colocate_all" in run.launch.read_text()
    assert prepare_stage("stage1", settings, run).resuming


def test_a_prepared_run_finds_its_index_from_any_folder(
    overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r1searcher.stages.prepare import prepare_stage

    settings, run = load("stage1", None, None, {**overrides, "retrieval.url": "file:index"}), RunFolder(Path("run"))
    prepare_stage("stage1", settings, run)
    monkeypatch.chdir("/")
    _, prepared = read_run(RunFolder(tmp_path / "run"))
    assert is_index(prepared.retrieval.engine.folder)
    assert load("stage1", None, None, {"retrieval.url": "http://h:1/retrieve"}).retrieval.absolute().url == (
        "http://h:1/retrieve"
    )


OTHERS = {
    "engine.gpus": (2, r"engine\.gpus was 1, is 2"),
    "engine.zero_stage": (3, r"engine\.zero_stage was 2, is 3"),
    "seed": (8, r"seed was 7, is 8"),
    "episode.top_k": (1, r"episode\.top_k was 3, is 1"),
}
"""Settings with which a checkpoint cannot be resumed, or would be another run."""


@pytest.mark.parametrize("key", OTHERS)
def test_a_run_is_not_resumed_with_other_settings(key: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    from r1searcher.stages.prepare import prepare_stage

    run, (value, said) = RunFolder(tmp_path / "run"), OTHERS[key]
    overrides = {**overrides, "rl.micro_batch_size": 2}  # divides the batch for two processes as well
    prepare_stage("stage1", load("stage1", None, None, overrides), run)
    before = run.launch.read_bytes()
    with pytest.raises(InputError, match=rf"run holds a run with other settings \({said}\): resume it with those"):
        prepare_stage("stage1", load("stage1", None, None, {**overrides, key: value}), run)
    assert run.launch.read_bytes() == before


def test_a_run_is_not_resumed_with_other_questions_or_on_another_device(
    overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r1searcher.stages.prepare import check_resumable, prepare_stage

    run = RunFolder(tmp_path / "run")
    settings = load("stage1", None, None, {**overrides, "engine.device": "auto"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    prepare_stage("stage1", settings, run)
    manifest = json.loads(run.manifest.read_text())
    assert check_resumable(run, settings.model_copy(update={"retrieval": settings.retrieval.absolute()}), manifest)
    with pytest.raises(InputError, match=r"holds another run \(different: device\)"):
        check_resumable(run, settings, {**manifest, "device": "gpu"})
    with (tmp_path / "nq" / "train.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "question": "a new one?", "golden_answers": ["Oslo"]}) + "\n")
    with pytest.raises(InputError, match=r"holds another run \(different: data_sha256\)"):
        prepare_stage("stage1", settings, run)


def test_a_run_is_resumed_on_another_cluster(overrides: dict[str, Any], tmp_path: Path) -> None:
    """The check of the cluster is not run here: there is none."""
    from r1searcher.engine.launch import prepare_rl
    from r1searcher.stages.prepare import check_resumable, manifest_of, write_run_metadata

    def on(address: str) -> Settings:
        keys = {**overrides, "engine.ray_address": address, "model.path": str(tmp_path / "cache" / NAME)}
        return load("stage1", None, None, keys)

    run, first, second = RunFolder(tmp_path / "run"), on("10.0.0.1:6379"), on("10.0.0.2:6380")
    write_run_metadata(run, first, manifest_of("stage1", first))
    assert check_resumable(run, second, manifest_of("stage1", second))
    write_run_metadata(run, second, None)
    prepare_rl(second, run, Path(second.model.path))
    assert read_run(run)[1].engine.ray_address == "10.0.0.2:6380"
    assert "export R1S_RAY_ADDRESS=10.0.0.2:6380" in run.launch.read_text()
    assert check_resumable(run, first, manifest_of("stage1", first))


def test_the_warm_up_starts_from_the_demo_model(overrides: dict[str, Any], tmp_path: Path) -> None:
    from r1searcher.stages.sft import start_model

    settings = load("sft", None, None, overrides)
    assert start_model(settings, RunFolder(tmp_path / "run")) == tmp_path / "cache" / NAME
