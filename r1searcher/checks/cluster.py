"""Whether every node of the Ray cluster can run the stage."""

import platform
from importlib.metadata import distributions

from r1searcher.checks.base import Check, Skip, StageInputs
from r1searcher.checks.retriever import first_episode
from r1searcher.checks.space import model_shape
from r1searcher.common.files import nearest_folder
from r1searcher.common.terminal import error_line
from r1searcher.common.versions import PACKAGES, installed_version
from r1searcher.engine.cluster.address import cluster_address
from r1searcher.engine.cluster.facts import sizes
from r1searcher.engine.cluster.probe import Job, RetrieverJob, probe
from r1searcher.engine.cluster.problems import Needs, problems_of
from r1searcher.engine.environment import keys_of
from r1searcher.engine.openrlhf.flags import executor_file
from r1searcher.engine.topology import Topology, require_gpus
from r1searcher.errors import InputError
from r1searcher.models.demo import model_folder
from r1searcher.models.folder import local_model
from r1searcher.planning.memory import host_memory


def _cluster(inputs: StageInputs) -> None:
    """Every node of the Ray cluster has the folders, packages, GPUs and memory, and reaches the retriever."""
    address = cluster_address(inputs.settings)
    if address is None:
        raise Skip("the run is on this machine")
    if inputs.topology is None:
        raise Skip("there is no device to train on")
    needs = _needs(inputs, inputs.topology)
    answer = probe(
        Job(
            address=address,
            folder=str(nearest_folder(needs.run_folder)),
            model=str(needs.model),
            executor=str(needs.executor),
            packages=list(needs.packages),
            gpus=needs.gpus,
            retriever=_retriever_job(inputs),
        )
    )
    problems = problems_of(needs, answer.nodes, answer.free_gpus)
    if inputs.stage != "sft":
        require_gpus(inputs.topology, sum(node.ray_gpus for node in answer.nodes), "the Ray cluster")
    if problems:
        raise InputError("\n  ".join(problems))


def _needs(inputs: StageInputs, topology: Topology) -> Needs:
    settings, sft = inputs.settings, inputs.stage == "sft"
    model = local_model(inputs.model or model_folder(settings.model.path, error_line), settings.model.trust_remote_code)
    evaluates = settings.data.held_out and settings.evaluation.questions
    leaves_gpus = topology.device == "gpu" and topology.colocate and not sft
    return Needs(
        device=topology.device,
        run_folder=inputs.run.path,
        model=model.resolve(),
        executor=executor_file(),
        python=platform.python_version(),
        packages={name: version for name in _packages() if (version := installed_version(name))},
        model_files=sizes(model),
        gpus=topology.sft_processes if sft else topology.gpus,
        gpus_on_one_node=topology.sft_processes if sft else topology.tensor_parallel * bool(evaluates),
        memory=_memory(inputs, topology) if leaves_gpus else 0,
        shares_gpu_memory=leaves_gpus,
        retriever="" if sft else settings.retrieval.engine.url,
        fingerprint=inputs.health.fingerprint if inputs.health else "",
    )


def _packages() -> list[str]:
    """The packages that decide what is trained, and those that add something to r1searcher."""
    extensions = {
        package.name
        for package in distributions()
        if any(entry.group.startswith("r1searcher.") for entry in package.entry_points)
    }
    return ["r1searcher", *PACKAGES, *sorted(extensions - {"r1searcher"})]


def _memory(inputs: StageInputs, topology: Topology) -> int:
    """0 where the shape of the model is not known."""
    try:
        return host_memory(inputs.settings, topology, model_shape(inputs))
    except Skip:
        return 0


def _retriever_job(inputs: StageInputs) -> RetrieverJob | None:
    if inputs.stage == "sft":
        return None
    episode, retrieval = first_episode(inputs), inputs.settings.retrieval.absolute()
    return RetrieverJob(
        settings=retrieval.engine.model_dump(mode="json", exclude_unset=True) | {"kind": retrieval.engine.kind},
        question=episode.question,
        gold_answers=list(episode.gold_answers),
        keys=list(keys_of(inputs.settings)),
    )


cluster = Check(_cluster, costly=True)
