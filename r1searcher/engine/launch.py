"""A stage as a command line: `launch.sh` in the run folder, which `process.run_engine` runs.

write_prompts(run, prompts, settings)       # see training_rows
prepare_rl(settings, run, model)            # writes launch.sh
decision = run_engine(run, tick=tick)       # blocks; after a kill, the same calls resume from the last checkpoint
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1searcher.common.files import read_rows, read_text, write_rows, write_text, writing
from r1searcher.config.settings import Settings
from r1searcher.engine.cluster import one_node
from r1searcher.engine.cluster.address import cluster_address
from r1searcher.engine.environment import environment, one_process
from r1searcher.engine.openrlhf import main
from r1searcher.engine.openrlhf.flags import EngineRun, argv, rl_flags, sft_flags
from r1searcher.engine.topology import topology_of
from r1searcher.engine.training_rows import by_length_within_updates, trace_tokens
from r1searcher.episodes.tokens import HuggingFaceTokenizer, load_tokenizer
from r1searcher.errors import InputError
from r1searcher.models.folder import local_model, require_layers
from r1searcher.runs.folder import RunFolder


def prepare_rl(settings: Settings, run: RunFolder, model: Path, executor: Path | None = None) -> None:
    """Write `launch.sh` for one stage. The run folder must have its configuration, manifest and prompts.

    `model` is a folder, or a name on the hub. `executor` is a file that replaces our executor, for benchmarks.
    """
    topology = topology_of(settings)
    model = _start(settings, model)
    this = EngineRun(settings=settings, run=run, model=model, topology=topology)
    _write_launch_script(
        run, environment(settings, run, topology), ["-m", main.__name__, "rl"], argv(rl_flags(this, executor))
    )


def prepare_sft(settings: Settings, run: RunFolder, model: Path) -> None:
    """Write `launch.sh` for the SFT. The run folder must have its configuration and the traces.

    The traces of `run.questions` are trained in their order, `sft.batch_size` per update; the file is rewritten with
    traces of similar length together inside each update.

    Raises `InputError` for traces longer than `episode.max_context`: cutting a turn would teach the model to stop
    there.
    """
    model = _start(settings, model)
    rows = list(read_rows(run.questions))
    lengths = _token_counts(rows, model, settings.model.trust_remote_code)
    most = settings.episode.max_context
    long = [number for number, length in enumerate(lengths, start=1) if length > most]
    if long:
        raise InputError(
            f"data.traces: {len(long)} traces (first: number {long[0]}) have more than {most} tokens: shorten them "
            "or raise episode.max_context"
        )
    write_rows(run.questions, by_length_within_updates(rows, settings.sft.batch_size, lengths))
    write_sft_launch(settings, run, model)


def write_sft_launch(settings: Settings, run: RunFolder, model: Path) -> None:
    """Write `launch.sh` for an SFT whose traces are in order. On a cluster, it runs on a node that has the GPUs."""
    topology = topology_of(settings)
    this = EngineRun(settings=settings, run=run, model=model, topology=topology)
    python = ["-m", main.__name__, "sft"]
    variables = environment(settings, run, topology)
    if topology.device == "gpu":
        python = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={topology.sft_processes}", *python]
    if cluster_address(settings):
        python = ["-m", one_node.__name__, str(topology.sft_processes), *python]
    elif topology.device == "cpu":
        variables |= one_process()
    _write_launch_script(run, variables, python, argv(sft_flags(this)))


def _start(settings: Settings, model: Path) -> Path:
    """The folder of the model that training starts with. Raises `InputError` where it cannot be trained as asked."""
    folder = local_model(str(model), settings.model.trust_remote_code)
    if settings.lora.rank:
        require_layers(folder, settings.lora.target_modules)
    return folder


def is_sft(run: RunFolder) -> bool:
    """Whether the run's `launch.sh` starts an SFT."""
    return f"{main.__name__} sft" in read_text(run.launch, "the launch script")


def _token_counts(rows: Sequence[Mapping[str, Any]], model: Path, trust_remote_code: bool) -> list[int]:
    encode = HuggingFaceTokenizer(load_tokenizer(model, trust_remote_code)).encode
    return [len(trace_tokens(row["segments"], encode)[0]) for row in rows]


def _write_launch_script(
    run: RunFolder, variables: Mapping[str, str], python: Sequence[str], words: Sequence[str]
) -> None:
    lines = [
        "#!/usr/bin/env bash",
        "# The engine of this run: run `bash launch.sh` to repeat it, from the last checkpoint if there is one.",
        "set -euo pipefail",
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        " ".join(["exec", shlex.quote(sys.executable), *python, "\\"]),
    ]
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(shlex.quote(word))
    lines += [f"  {' '.join(group)} \\" for group in groups]
    lines[-1] = lines[-1].removesuffix(" \\")
    write_text(run.launch, "\n".join(lines) + "\n")
    with writing(run.launch):
        run.launch.chmod(0o755)
