"""Explains in one sentence why the engine failed, from its output."""

import re
import signal
from collections.abc import Mapping

from r1searcher.errors import R1Error

EXPLANATIONS: Mapping[str, str] = {
    r"No space left on device": "the disk is full",
    r"CUDA out of memory": "a GPU ran out of memory: lower rl.micro_batch_size or engine.gpu_memory_utilization",
    r"ray\.exceptions\.OutOfMemoryError|Cannot allocate memory|not enough memory: you tried to allocate": (
        "the machine ran out of memory: lower rl.micro_batch_size or episode.max_context, or close other programs"
    ),
    r"insufficient resources|No available node types can fulfill": (
        "the Ray cluster has too few GPUs for engine.gpus and engine.vllm_engines x engine.tensor_parallel"
    ),
}
"""Explanations of some messages in the engine's log. The first match is the cause."""

_LOST = re.compile(
    r"Connection (?:closed|reset) by peer|ncclRemoteError|remote process exited|Actor(?:Died|Unavailable)Error|"
    r"NodeDiedError|node has died|[Rr]aylet (?:has )?died|Failed to connect to GCS|RpcError"
)
"""What a process prints when it misses another one: the consequence of an error there, or of the end of its node."""

_LOST_SAID = (
    "a process of the engine was lost, perhaps with its node: on a cluster, `ray status` shows which node is missing; "
    "start Ray there again, and the same command resumes the run"
)

_PREFIX = re.compile(r"^(?:\((?:\w+ )?(?:pid|\w+ pid)=\d+[^)]*\)\s?|\[rank\d+\]: ?)")
"""Ray's and torch's names of the process that wrote a line."""

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_OURS = re.compile(r"r1searcher\.errors\.\w+: (.+)")
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*(\w*(?:Error|Exception|Exit)): (.+)")


def line_of(error: R1Error) -> str:
    """An error as a line of the log, as Python itself would end a traceback; `explain` finds it."""
    return f"{type(error).__module__}.{type(error).__name__}: {error}"


def explain(log: str, returncode: int) -> str:
    """Why the engine failed, in one sentence, from its output: the first error causes all later ones."""
    lines = [_PREFIX.sub("", _COLOR.sub("", line)).strip() for line in log.splitlines()]
    for line in lines:
        if found := _OURS.search(line):
            return found[1]
    for pattern, sentence in EXPLANATIONS.items():
        if re.search(pattern, log):
            return sentence
    for line in lines:
        found = _ERROR.match(line)
        if found and "Ray" not in found[1] and "Actor" not in found[1] and not _LOST.search(line):
            return f"the engine failed: {found[1]}: {found[2]}"
    if _LOST.search(log):
        return _LOST_SAID
    if returncode in (-signal.SIGKILL, -signal.SIGTERM):
        return f"the engine was killed from outside (signal {-returncode}), perhaps because memory ran out"
    last = next((line for line in reversed(lines) if line), "it printed nothing")
    return f"the engine failed with exit code {returncode}: {last}"
