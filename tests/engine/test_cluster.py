"""What is missing on which node, from the facts of nodes; and which cluster a run joins. Nothing is started."""

from pathlib import Path
from typing import Any

import pytest

from r1searcher.config.settings import load
from r1searcher.engine.cluster import facts
from r1searcher.engine.cluster.address import JOB, cluster_address
from r1searcher.engine.cluster.problems import Needs, NodeFacts, RetrieverFacts, is_loopback, problems_of
from r1searcher.errors import InputError

PACKAGES = {"r1searcher": "0.1.0", "torch": "2.13.0", "ray": "2.55.0"}

NEEDS: dict[str, Any] = {
    "device": "gpu",
    "run_folder": Path("/runs/a"),
    "model": Path("/models/m"),
    "executor": Path("/env/executor.py"),
    "python": "3.11.7",
    "packages": PACKAGES,
    "model_files": {"config.json": 700, "model.safetensors": 9000},
    "gpus": 16,
    "memory": 200,
    "shares_gpu_memory": True,
    "retriever": "http://10.0.0.9:8000/retrieve",
    "fingerprint": "f",
}

FACTS: dict[str, Any] = {
    "address": "10.0.0.1",
    "host": "one",
    "ray_gpus": 8,
    "python": "3.11.7",
    "packages": PACKAGES,
    "model_files": {"config.json": 700, "model.safetensors": 9000, "README.md": 1},
    "memory": 200,
    "gpus": 8,
    "retriever": RetrieverFacts(fingerprint="f"),
}


def found(needs: dict[str, Any], one: dict[str, Any], free_gpus: int = 16) -> list[str]:
    """The problems of two nodes, of which the second is as it should be."""
    nodes = [NodeFacts(**{**FACTS, **one}), NodeFacts(**{**FACTS, "address": "10.0.0.2", "host": "two"})]
    return problems_of(Needs(**{**NEEDS, **needs}), nodes, free_gpus)


def test_nodes_that_have_everything_have_no_problem() -> None:
    assert found({}, {}) == []
    assert found({"retriever": ""}, {"retriever": None}) == []
    assert found({"device": "cpu"}, {"memory": 0, "may_share_gpu_memory": False, "gpus": 0}) == []


ONE_NODE = {
    "did not start a task": ({"answered": False}, "it did not run a task; see `ray status`"),
    "another folder": ({"reads": False}, "/runs/a is another folder there; put `output` into a folder that all nodes"),
    "a folder of its own": ({"returned": False}, "/runs/a is another folder there; put `output`"),
    "read-only": ({"writes": "Read-only file system"}, "/runs/a cannot be written there (Read-only file system); put"),
    "no model": ({"model_files": {}}, "the model /models/m is not there; copy it to the same path"),
    "another model": (
        {"model_files": {"config.json": 700, "model.safetensors": 8999}},
        "the model /models/m is another one there (model.safetensors); copy",
    ),
    "packages": (
        {"packages": {"r1searcher": "0.1.0", "torch": "2.12.0"}},
        "torch 2.12.0 instead of 2.13.0, ray is missing instead of 2.55.0; run `scripts/install-training gpu` there",
    ),
    "Python": ({"python": "3.12.1"}, "Python 3.12.1 instead of 3.11.7; run `scripts/install-training gpu` there"),
    "another path": ({"has_executor": False}, "there is no /env/executor.py; install r1searcher under the same path"),
    "no retriever": (
        {"retriever": RetrieverFacts(error="http://10.0.0.9:8000 refused the connection")},
        "the retriever does not answer there: http://10.0.0.9:8000 refused the connection; check",
    ),
    "another index": (
        {"retriever": RetrieverFacts(fingerprint="g")},
        "http://10.0.0.9:8000/retrieve is another index there than on this machine; copy",
    ),
    "fewer GPUs": ({"gpus": 4}, "it has 4 GPUs, and Ray was told of 8: start it with --num-gpus=4"),
    "memory": ({"memory": 199}, "of its memory, which has 0 GiB; use more nodes, a smaller model, or lora.rank"),
    "ptrace": ({"may_share_gpu_memory": False}, "engine.colocate needs; run `sysctl -w kernel.yama.ptrace_scope=0`"),
    "full disk": ({"temporary_share_used": 0.96}, "its disk for temporary files is 96% full, and Ray needs 5%; free"),
}


@pytest.mark.parametrize("case", ONE_NODE)
def test_a_problem_of_one_node_is_one_line_with_its_address_and_the_fix(case: str) -> None:
    changed, said = ONE_NODE[case]
    (line,) = found({}, changed)
    assert line.startswith("node 10.0.0.1 (one): ")
    assert said in line
    assert "\n" not in line


def test_what_gpus_share_matters_only_where_there_are_gpus() -> None:
    assert found({}, {"ray_gpus": 0, "gpus": 0, "memory": 0, "may_share_gpu_memory": False}, 16) == []
    assert found({"memory": 0, "shares_gpu_memory": False}, {"may_share_gpu_memory": False}) == []


def test_gpus_that_other_jobs_hold_or_that_no_node_has_are_a_problem() -> None:
    (busy,) = found({}, {}, free_gpus=15)
    assert busy.startswith("the run needs 16 GPUs, and 15 of the cluster's 16 are free: `ray status` shows")
    (spread,) = found({"gpus": 10, "gpus_on_one_node": 10}, {})
    assert spread.startswith("engine.gpus: 10 GPUs are needed on one node, and the largest node has 8; lower")
    assert found({"gpus": 17}, {}) == [], "require_gpus has a sentence for a cluster that is too small"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/retrieve", "es://localhost:9200/wiki", "http://[::1]:8000/x"])
def test_a_url_that_is_another_machine_on_each_node_is_refused(url: str) -> None:
    (line,) = found({"retriever": url}, {})
    assert line.startswith(f"retrieval.url: {url} is another machine on each node; give the address of the machine")
    assert found({"retriever": url}, {"address": "10.0.0.2"}) == [], "all nodes are on one machine"


@pytest.mark.parametrize("url", ["/indexes/wiki", "file:index", "es://search:9200/wiki", "http://10.0.0.9:1/retrieve"])
def test_other_urls_are_the_same_on_each_node(url: str) -> None:
    assert not is_loopback(url)


def test_the_password_of_a_url_is_not_shown() -> None:
    (line,) = found({"retriever": "http://me:secret@10.0.0.9:8000/retrieve"}, {"retriever": RetrieverFacts()})
    assert "secret" not in line


@pytest.mark.parametrize(
    ("scope", "capabilities", "may"),
    [("0", "0", True), ("1", "0", False), ("1", "80000", True), ("3", "80000", False), (None, "0", True)],
)
def test_who_may_share_gpu_memory(scope: str | None, capabilities: str, may: bool, tmp_path: Path) -> None:
    """Documentation/admin-guide/LSM/Yama.rst of Linux: CAP_SYS_PTRACE (bit 19) is enough up to 2, nothing is at 3."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text(f"Name:\tx\nCapEff:\t{capabilities}\n")
    if scope is not None:
        (tmp_path / "sys/kernel/yama").mkdir(parents=True)
        (tmp_path / "sys/kernel/yama/ptrace_scope").write_text(f"{scope}\n")
    assert facts.may_share_gpu_memory(tmp_path) == may


def test_a_node_replies_to_the_file_that_it_reads(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    found = facts.facts(str(tmp_path), "token", "n1", str(tmp_path), "/nowhere.py", ["pytest", "no-such-package"])
    assert (found["reads"], found["writes"], found["has_executor"]) == (True, "", False)
    assert (tmp_path / "token.n1").read_text() == "token"
    assert found["model_files"].keys() == {"token", "token.n1"}
    assert list(found["packages"]) == ["pytest"]
    NodeFacts(address="10.0.0.1", **found)
    assert facts.facts(str(tmp_path / "no"), "token", "n1", "/no", "/no", [])["writes"] == "No such file or directory"


def test_a_run_joins_the_cluster_of_its_settings_or_of_its_job() -> None:
    job = {JOB: "{}", "RAY_ADDRESS": "10.0.0.7:6379"}
    assert cluster_address(load("stage1"), {"RAY_ADDRESS": "10.0.0.7:6379"}) is None, "as Ray itself would"
    assert cluster_address(load("stage1"), job) == "10.0.0.7:6379"
    assert cluster_address(load("stage1", overrides={"engine.ray_address": "auto"}), job) == "auto"
    assert cluster_address(load("stage1", overrides={"engine.ray_address": ""}), {}) is None


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "10.0.0.1", "http://10.0.0.1:8265", "10.0.0.1:x"])
def test_an_address_that_is_not_one_of_a_cluster_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="must be HOST:PORT, as `ray start --head` prints it"):
        load("stage1", overrides={"engine.ray_address": address})
