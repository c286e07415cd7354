"""Asks every node of a cluster what the stage needs to know: one task per node, in a process of its own.

The child (`python -m r1searcher.engine.cluster.probe`) reads the job as JSON from standard input and answers on
standard output; the process of the command never becomes a driver of Ray itself.
"""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from r1searcher.common import last_resort
from r1searcher.common.files import parse_json, write_text
from r1searcher.common.records import Record
from r1searcher.common.versions import installed_version
from r1searcher.engine.cluster import facts
from r1searcher.engine.cluster.join import free_gpus, joined
from r1searcher.engine.cluster.problems import NodeFacts, RetrieverFacts
from r1searcher.engine.topology import gpus_of_the_driver
from r1searcher.errors import InputError, R1Error
from r1searcher.retrieval.base import EpisodeContext
from r1searcher.retrieval.probe import probed
from r1searcher.retrieval.registry import settings_of_table

Facts = dict[str, Any]

PATIENCE = 180.0
"""Seconds in which a node has to run a task; a busy one needs many to start a process."""


class RetrieverJob(Record):
    """A retriever's settings with its kind, and a question for it; `keys` are the names of variables that it reads."""

    settings: dict[str, Any]
    question: str
    gold_answers: list[str]
    keys: list[str]


class Job(Record):
    """What is asked. `folder` exists, and the run folder is in it or is it."""

    address: str
    folder: str
    model: str
    executor: str
    packages: list[str]
    gpus: int
    retriever: RetrieverJob | None


class Answer(Record):
    """`free_gpus` are those of the whole cluster that no other job holds."""

    nodes: list[NodeFacts]
    free_gpus: int


def probe(job: Job) -> Answer:
    """Ask every node that is alive. Raises `InputError` if the cluster cannot be joined, or `R1Error`."""
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=job.model_dump_json().encode(), capture_output=True, check=False)
    if done.returncode == 0:
        return Answer.model_validate(parse_json(done.stdout))
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.startswith("r1s: ")]
    said = lines[-1].removeprefix("r1s: ") if lines else f"the probe of the cluster ended with {done.returncode}"
    raise (InputError if done.returncode == InputError.exit_code else R1Error)(said)


def ask(job: Job) -> Answer:
    """The child's work."""
    import ray

    with joined(job.address, {}, shows_output=False), ExitStack() as stack:
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and _works(node["Resources"])}
        marker = stack.enter_context(_marker(Path(job.folder), alive))
        ray.cloudpickle.register_pickle_by_value(facts)
        arguments = {n: (job.folder, marker.name, n, job.model, job.executor, job.packages) for n in alive}
        described = _on_nodes(facts.facts, arguments)
        ours = installed_version("r1searcher")
        same = {n: (job.retriever, _keys(job)) for n, d in described.items() if d["packages"].get("r1searcher") == ours}
        further = _on_nodes(with_this_package, same)
        nodes = [
            NodeFacts.model_validate(
                {
                    "address": node["NodeManagerAddress"],
                    "ray_gpus": int(node["Resources"].get("GPU", 0)),
                    "answered": n in described and (n in further or n not in same),
                    "returned": _reply(marker, n).exists(),
                    **described.get(n, {}),
                    **further.get(n, {}),
                }
            )
            for n, node in alive.items()
        ]
        return Answer(nodes=nodes, free_gpus=free_gpus(job.gpus))


def with_this_package(job: RetrieverJob | None, keys: Mapping[str, str]) -> dict[str, Any]:
    """On a node: its GPUs, and whether the retriever answers there."""
    os.environ.update(keys)
    found: dict[str, Any] = {"gpus": gpus_of_the_driver(Path("/"))}
    if job is not None:
        found["retriever"] = _retriever(job)
    return found


def _retriever(job: RetrieverJob) -> dict[str, str]:
    episode = EpisodeContext(question=job.question, gold_answers=tuple(job.gold_answers))
    try:
        engine = settings_of_table(job.settings["kind"], job.settings)
        return RetrieverFacts(fingerprint=asyncio.run(probed(engine, episode)).fingerprint).model_dump()
    except R1Error as error:
        return RetrieverFacts(error=str(error)).model_dump()
    except Exception as error:  # an engine of another package
        return RetrieverFacts(error=f"{type(error).__name__}: {error}").model_dump()


def _keys(job: Job) -> dict[str, str]:
    return {name: os.environ[name] for name in (job.retriever.keys if job.retriever else ()) if name in os.environ}


def _works(resources: Mapping[str, float]) -> bool:
    """Whether Ray may start a process of the run on a node with these resources."""
    return bool(resources.get("CPU") or resources.get("GPU"))


def _on_nodes(function: Callable[..., Facts], arguments: Mapping[str, Sequence[Any]]) -> dict[str, Facts]:
    """What `function` returns on each node, by the node's id; without the nodes where it does not run."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    running = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*given): node
        for node, given in arguments.items()
    }
    found = {}
    if running:
        done, _ = ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)
        for reference in done:
            try:
                found[running[reference]] = ray.get(reference)
            except ray.exceptions.RayError:  # its process could not start, or ended
                continue
    return found


@contextmanager
def _marker(folder: Path, nodes: Iterable[str]) -> Iterator[Path]:
    """A file that every node should see; it and their replies are removed at the end. Raises `FileError`."""
    marker = folder / f".r1s-probe-{uuid.uuid4().hex}"
    write_text(marker, marker.name)
    try:
        yield marker
    finally:
        for file in (marker, *(_reply(marker, node) for node in nodes)):
            file.unlink(missing_ok=True)


def _reply(marker: Path, node: str) -> Path:
    return marker.with_name(f"{marker.name}.{node}")


def main() -> int:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not part of the answer
    job = Job.model_validate(parse_json(sys.stdin.buffer.read()))
    answer.write(ask(job).model_dump_json())
    answer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(last_resort.run(main))
