"""What is missing on which node of a cluster: pure functions of the facts."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from r1searcher.common.http import shown_url
from r1searcher.common.records import Record
from r1searcher.engine.topology import Device

GIB = 2**30

FULL = 0.95
"""Share of a node's disk above which Ray refuses to create objects (`local_fs_capacity_threshold`)."""


class RetrieverFacts(Record):
    """What the retriever answered a node: its fingerprint, or why it did not."""

    fingerprint: str = ""
    error: str = ""


class NodeFacts(Record):
    """One node, as it describes itself; `answered` False: it did not, and everything else is unknown."""

    address: str
    ray_gpus: int = 0
    """GPUs that Ray was told of."""

    answered: bool = True
    host: str = ""
    python: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    reads: bool = True
    """The run folder has the file that the machine of the command wrote."""

    writes: str = ""
    """Why the node cannot write to the run folder; empty if it can."""

    returned: bool = True
    """The machine of the command sees what the node wrote."""

    model_files: dict[str, int] = Field(default_factory=dict)
    has_executor: bool = True
    memory: int = 0
    temporary_share_used: float = 0.0
    may_share_gpu_memory: bool = True
    gpus: int | None = None
    """GPUs that the node has; None if it was not asked."""

    retriever: RetrieverFacts | None = None
    """None if the node was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a stage needs of every node, from the machine of the command."""

    device: Device
    run_folder: Path
    model: Path
    executor: Path
    """The file that the engine loads the episode loop from."""

    python: str
    packages: Mapping[str, str]
    model_files: Mapping[str, int]
    gpus: int
    """On all nodes together."""

    gpus_on_one_node: int = 0
    """Of what runs on a single node: the SFT, or the model of an evaluation."""

    memory: int = 0
    """Bytes per node with GPUs."""

    shares_gpu_memory: bool = False
    """Trainer and vLLM share GPUs: weights are passed on as CUDA memory."""

    retriever: str = ""
    """URL; empty if the stage does not search."""

    fingerprint: str = ""
    """Of the retriever, as the machine of the command sees it."""


def problems_of(needs: Needs, nodes: Sequence[NodeFacts], free_gpus: int) -> list[str]:
    """One sentence per problem, with the node's address and the fix. `free_gpus`: those that no other job holds."""
    said = [_said(node, sentence) for node in nodes for sentence in _of_node(needs, node)]
    return [*_of_retriever_url(needs, nodes), *_of_gpus(needs, nodes, free_gpus), *said]


def _said(node: NodeFacts, sentence: str) -> str:
    return f"node {node.address}{f' ({node.host})' if node.host else ''}: {sentence}"


def _of_retriever_url(needs: Needs, nodes: Sequence[NodeFacts]) -> Iterator[str]:
    if is_loopback(needs.retriever) and len({node.address for node in nodes}) > 1:
        yield (
            f"retrieval.url: {shown_url(needs.retriever)} is another machine on each node; give the address of the "
            "machine that it runs on, and let it listen there (`r1s serve INDEX --host 0.0.0.0`)"
        )


def is_loopback(url: str) -> bool:
    """Whether a URL means the machine that opens it."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, or a folder
        return False


def _of_gpus(needs: Needs, nodes: Sequence[NodeFacts], free_gpus: int) -> Iterator[str]:
    largest = max((node.ray_gpus for node in nodes), default=0)
    total = sum(node.ray_gpus for node in nodes)
    if needs.gpus_on_one_node > largest:
        yield (
            f"engine.gpus: {needs.gpus_on_one_node} GPUs are needed on one node, and the largest node has {largest}; "
            "lower engine.gpus (for SFT in [sft.engine]) or engine.tensor_parallel"
        )
    if needs.gpus <= total and free_gpus < needs.gpus:  # with fewer in total, the sentence is another one
        yield (
            f"the run needs {needs.gpus} GPUs, and {free_gpus} of the cluster's {total} are free: `ray status` shows "
            "what holds the others; wait for it, or end it"
        )


def _of_node(needs: Needs, node: NodeFacts) -> Iterator[str]:
    if not node.answered:
        yield "it did not run a task; see `ray status`, and the logs in /tmp/ray/session_latest/logs there"
        return
    yield from _of_folders(needs, node)
    yield from _of_packages(needs, node)
    if node.retriever is not None and needs.retriever:
        yield from _of_retriever(needs, node.retriever)
    if node.temporary_share_used > FULL:
        yield (
            f"its disk for temporary files is {node.temporary_share_used:.0%} full, and Ray needs {1 - FULL:.0%}; free "
            "some space, or start Ray there with --temp-dir"
        )
    if needs.device == "gpu" and node.ray_gpus:
        yield from _of_machine(needs, node)


def _of_folders(needs: Needs, node: NodeFacts) -> Iterator[str]:
    shared = "put `output` into a folder that all nodes share under the same path (NFS, Lustre)"
    if node.writes:
        yield f"{needs.run_folder} cannot be written there ({node.writes}); {shared}"
    elif not (node.reads and node.returned):
        yield f"{needs.run_folder} is another folder there; {shared}"
    if not node.model_files:
        yield f"the model {needs.model} is not there; copy it to the same path, or to a folder that all nodes share"
    elif wrong := sorted(name for name, size in needs.model_files.items() if node.model_files.get(name) != size):
        yield f"the model {needs.model} is another one there ({wrong[0]}); copy this machine's to the same path"


def _of_packages(needs: Needs, node: NodeFacts) -> Iterator[str]:
    wanted, found = {"Python": needs.python, **needs.packages}, {"Python": node.python, **node.packages}
    wrong = [
        f"{name} {found.get(name, 'is missing')} instead of {version}"
        for name, version in wanted.items()
        if found.get(name) != version
    ]
    if wrong:
        yield f"{', '.join(wrong)}; run `scripts/install-training {needs.device}` there"
    elif not node.has_executor:
        yield f"there is no {needs.executor}; install r1searcher under the same path as on this machine"


def _of_retriever(needs: Needs, found: RetrieverFacts) -> Iterator[str]:
    if found.error:
        error = found.error.rstrip(".")
        yield f"the retriever does not answer there: {error}; check the URL or path and the network from there"
    elif found.fingerprint != needs.fingerprint:
        yield (
            f"{shown_url(needs.retriever)} is another index there than on this machine; copy this one to the same "
            "path, or put it into a folder that all nodes share"
        )


def _of_machine(needs: Needs, node: NodeFacts) -> Iterator[str]:
    if node.gpus is not None and node.gpus < node.ray_gpus:
        yield f"it has {node.gpus} GPUs, and Ray was told of {node.ray_gpus}: start it with --num-gpus={node.gpus}"
    if needs.memory > node.memory:
        yield memory_problem(needs.memory, node.memory, "its")
    if needs.shares_gpu_memory and not node.may_share_gpu_memory:
        yield (
            "processes there may not pass on GPU memory, which engine.colocate needs; run `sysctl -w "
            "kernel.yama.ptrace_scope=0` there as root"
        )


def memory_problem(needed: int, present: int, whose: str) -> str:
    """The sentence on a machine whose memory does not hold the states that the stage keeps there. Both in bytes."""
    return (
        f"states outside the GPUs take about {needed / GIB:.0f} GiB of {whose} memory, which has {present / GIB:.0f} "
        "GiB; use more nodes, a smaller model, or lora.rank"
    )
