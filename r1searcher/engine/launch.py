"""The engine as a child process: what is handed to it, starting, watching and stopping it, resuming, what went wrong.

    steps = write_prompts(run, rows, settings)
    prepare_rl(settings, run, model)            # writes launch.sh
    ending = run_engine(run, tick)              # blocks; the same calls after a kill go on from the last checkpoint

The child is `bash launch.sh`, so what lies in the run folder is what ran.
"""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from r1searcher.common.files import open_log, read_bytes, read_rows, read_text, write_json, write_text, writing
from r1searcher.common.records import read_record_if_there
from r1searcher.config.settings import Settings
from r1searcher.engine import cpu, data, flags, main, watch
from r1searcher.engine.watch import StopDecision
from r1searcher.errors import InputError, R1Error, RunStopped
from r1searcher.models.folder import local_model
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import LaunchNote, finished_steps, read_metrics

LAUNCH_VARIABLE = "R1S_LAUNCH"
"""Environment variable by which every process of one launch is found again, whoever its parent is by then."""

PATIENCE_TO_END = 20.0
"""Seconds that a driver has to end by itself before everything of the launch is killed."""


def device(settings: Settings) -> Literal["cpu", "gpu"]:
    """Where this run trains. Raises `InputError` where the settings ask for what the machine hasn't."""
    engine = settings.engine
    gpus = Path("/proc/driver/nvidia/gpus")
    present = os.environ.get("CUDA_VISIBLE_DEVICES") != "" and gpus.is_dir() and any(gpus.iterdir())
    if engine.device == "gpu" and not present and not engine.ray_address:
        raise InputError('engine.device = "gpu": this machine shows no NVIDIA GPU; use "auto" or "cpu"')
    if engine.device == "gpu" or (engine.device == "auto" and (present or engine.ray_address)):
        if engine.precision != "bf16" or engine.freeze_lower_layers:
            raise InputError(
                f"engine.precision = {engine.precision!r} and engine.freeze_lower_layers = "
                f"{engine.freeze_lower_layers} are savings of the CPU path; on GPUs use bf16 and 0"
            )
        return "gpu"
    if engine.attention == "flash_attention_2":
        raise InputError('engine.attention = "flash_attention_2" needs a GPU; use "sdpa"')
    return "cpu"


def write_prompts(run: RunFolder, rows: Sequence[tuple[str, str]], settings: Settings) -> int:
    """Write the engine's dataset of (prompt, label) pairs, exactly as many as the stage's steps take; returns them.

    In training order: pass by pass over the rows, each pass in an order of its own that the seed decides, or all in
    the order of the rows (`data.shuffle`). Whole steps only: a partial one would end amid an update.
    """
    size = settings.rl.questions_per_step
    if len(rows) < size:
        raise InputError(f"rl.questions_per_step = {size}, and there are {len(rows)} questions: lower it or add some")
    steps = settings.rl.steps or len(rows) // size
    order: list[int] = []
    passes = 0
    while len(order) < steps * size:
        one_pass = list(range(len(rows)))
        if settings.data.shuffle:
            random.Random(f"{settings.seed}/{passes}").shuffle(one_pass)
        order += one_pass
        passes += 1
    _write_jsonl(run.questions, ({"input": rows[i][0], "label": rows[i][1]} for i in order[: steps * size]))
    return steps


def prepare_rl(settings: Settings, run: RunFolder, model: Path, executor: Path | None = None) -> None:
    """Write `launch.sh` for one stage. The run folder holds its configuration, manifest and prompts by now.

    `model` is a folder, or a name on the hub.
    """
    where = device(settings)
    model = local_model(str(model), settings.model.trust_remote_code)
    words = flags.argv(flags.rl_flags(settings, run, model, where, executor))
    _write_launch_script(run, environment(settings, run, where), ["-m", main.__name__, "rl"], words)


def prepare_sft(settings: Settings, run: RunFolder, model: Path, max_len: int) -> None:
    """Write `launch.sh` for the SFT. The run folder holds its configuration and the rows by now.

    The rows of `run.questions` are trained in their order, `sft.batch_size` per update; the file is rewritten with
    rows of like length together inside each update.

    Raises `InputError` for rows longer than `max_len` tokens: cutting a turn would teach the model to stop there.
    """
    where = device(settings)
    model = local_model(str(model), settings.model.trust_remote_code)
    rows = list(read_rows(run.questions))
    lengths = _token_counts(rows, model, settings.model.trust_remote_code)
    long = [number for number, length in enumerate(lengths, start=1) if length > max_len]
    if long:
        raise InputError(
            f"{len(long)} SFT rows (first: number {long[0]}) have more than {max_len} tokens: shorten those traces "
            "or raise episode.max_context"
        )
    _write_jsonl(run.questions, data.by_length_within_updates(rows, settings.sft.batch_size, lengths))
    words = flags.argv(flags.sft_flags(settings, run, model, max_len))
    python = ["-m", main.__name__, "sft"]
    variables = environment(settings, run, where)
    if where == "gpu":
        python = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={settings.engine.gpus}", *python]
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        variables |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "RANK": "0",
            "WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
        }
    _write_launch_script(run, variables, python, words)


def _token_counts(rows: Sequence[Mapping[str, str]], model: Path, trust_remote_code: bool) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    return [
        len(ids) for ids in tokenizer([r["input"] + r["output"] for r in rows], add_special_tokens=False)["input_ids"]
    ]


def environment(settings: Settings, run: RunFolder, where: Literal["cpu", "gpu"]) -> dict[str, str]:
    """Everything the engine is told by environment variables."""
    variables = {
        watch.RUN_VARIABLE: str(run.path.resolve()),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",  # tokenizers warn, and may hang, when a process that used them forks
        "HF_HUB_OFFLINE": "1",  # models are local by now
        "HF_DATASETS_CACHE": str((run.path / "cache").resolve()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_DEDUP_LOGS": "0",
    }
    if settings.engine.ray_address:
        variables[main.RAY_ADDRESS] = settings.engine.ray_address
    if where == "cpu":
        engine = settings.engine
        adapter = cpu.CpuSettings(engine.precision, engine.freeze_lower_layers, engine.head_on_action_tokens)
        variables |= {
            cpu.CPU_ENV: adapter.to_env(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0)))),
            # Everything on this machine, so everything on its loopback interface.
            "GLOO_SOCKET_IFNAME": "lo",
            "VLLM_HOST_IP": "127.0.0.1",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the name is old: Ray keeps to the loopback interface
            **cpu.ENVIRONMENT,
        }
    return variables


def checkpoint_step(run: RunFolder) -> int:
    """The step of the last whole checkpoint; 0 where there is none."""
    latest = run.checkpoints / "_actor" / "latest"
    if not latest.exists():
        return 0
    found = re.fullmatch(r"global_step(\d{1,9})", read_bytes(latest, "the file").decode("utf-8", "replace").strip())
    if found is None:
        raise InputError(
            f"{latest} is damaged: write the name of the last whole folder beside it into it, for example global_step8"
        )
    return int(found[1])


def rewind(run: RunFolder) -> int:
    """Bring the run folder back to its last checkpoint, from which the engine goes on; returns that step.

    What was recorded after it is trained again and would be there twice. Raises `InputError` where a file is damaged,
    before anything is removed.
    """
    step = checkpoint_step(run)
    read_metrics(run)  # its rows are written back as they are, so they are checked first
    kept = [row for row in read_rows(run.metrics) if row["step"] <= step]
    if step == 0:  # a first checkpoint that a kill cut short: DeepSpeed would take the folder for a whole one
        shutil.rmtree(run.checkpoints / "_actor", ignore_errors=True)
    if run.metrics.exists():
        _write_jsonl(run.metrics, kept)
    for file in run.trajectories(1).parent.glob("step-*.jsonl"):
        if (found := re.fullmatch(r"step-(\d{1,9})", file.stem)) and int(found[1]) > step:
            file.unlink()
    for file in (run.stop_note, watch.ending_file(run), watch.stop_request(run)):
        file.unlink(missing_ok=True)
    return step


def run_engine(
    run: RunFolder,
    tick: Callable[[], None] = lambda: None,
    notify: Callable[[str], None] = lambda sentence: None,
    interval: float = 0.5,
) -> StopDecision:
    """Run `launch.sh` to its end, resuming at the last checkpoint, with `tick` called every `interval` seconds.

    The first interrupt (SIGINT) asks the engine to save and end behind the step under way, the second stops it at
    once, as SIGTERM does; `KeyboardInterrupt` (or `SystemExit`) comes out of either. Raises `RunStopped` when the run
    stopped on purpose, `R1Error` with one sentence for all that went wrong inside.
    """
    require_training_packages()
    end_leftovers(run)
    resumed_at = rewind(run)
    launch = uuid.uuid4().hex
    write_json(_launch_file(run), {"launch": launch})
    ray_folder = Path(tempfile.mkdtemp(prefix="r1s-", dir="/tmp"))  # sockets need a short path
    variables = {LAUNCH_VARIABLE: launch, main.PARENT_PIPE: "1", main.RAY_FOLDER: str(ray_folder)}
    interrupted = False
    with open_log(run.log, "ab") as log, _sigterm_exits():
        child = subprocess.Popen(
            ["bash", str(run.launch)],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log_starts = log.tell()
        try:
            while child.poll() is None:
                try:
                    tick()
                    time.sleep(interval)
                except KeyboardInterrupt:
                    if interrupted or _is_sft(run):
                        raise
                    interrupted = True
                    watch.stop_request(run).touch()
                    notify("saving and ending behind the step under way; interrupt again to stop at once")
        finally:
            _end(child, launch)
            shutil.rmtree(ray_folder, ignore_errors=True)
            shutil.rmtree(run.path / "cache", ignore_errors=True)
            _launch_file(run).unlink(missing_ok=True)
    tick()
    if interrupted:
        raise KeyboardInterrupt
    if child.returncode == 0:
        return watch.read_ending(run) or StopDecision("finished", finished_steps(run) or resumed_at)
    if run.stop_note.exists():
        note = read_bytes(run.stop_note, "the file").decode("utf-8", "replace").strip()
        raise RunStopped(f"{note} (checkpoint of step {checkpoint_step(run)} kept)")
    with run.log.open("rb") as log:
        log.seek(log_starts)
        raise R1Error(f"{explain(log.read().decode('utf-8', 'replace'), child.returncode)}; the whole log: {run.log}")


def require_training_packages() -> None:
    """Raises `InputError` with the command that brings them where the engine's packages are missing."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "ray", "deepspeed", "vllm", "openrlhf") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"training needs {', '.join(missing)}, which this Python hasn't: `scripts/install-training cpu` (or gpu) "
            "makes an environment that has"
        )


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
"""What some messages in the engine's log mean to the user. The first that is found is the cause."""

_PREFIX = re.compile(r"^\((?:\w+ )?(?:pid|\w+ pid)=\d+[^)]*\)\s?")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_OURS = re.compile(r"r1searcher\.errors\.\w+: (.+)")
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*(\w*(?:Error|Exception|Exit)): (.+)")


def explain(log: str, returncode: int) -> str:
    """One sentence on why the engine failed, from what it printed: its first error is the cause of all later ones."""
    lines = [_PREFIX.sub("", _COLOR.sub("", line)).strip() for line in log.splitlines()]
    for line in lines:
        if found := _OURS.search(line):
            return found[1]
    for pattern, sentence in EXPLANATIONS.items():
        if re.search(pattern, log):
            return sentence
    for line in lines:
        if (found := _ERROR.match(line)) and "Ray" not in found[1] and "Actor" not in found[1]:
            return f"the engine failed: {found[1]}: {found[2]}"
    if returncode in (-signal.SIGKILL, -signal.SIGTERM):
        return f"the engine was killed from outside (signal {-returncode}), perhaps because memory ran out"
    last = next((line for line in reversed(lines) if line), "it printed nothing")
    return f"the engine failed with exit code {returncode}: {last}"


def end_leftovers(run: RunFolder) -> None:
    """Kill what an earlier launch of this run left behind, if a kill -9 ended its launcher but not all of it."""
    note = read_record_if_there(
        _launch_file(run), LaunchNote, "remove it once no process of an earlier launch of this run is left"
    )
    if note is not None:
        _kill_all(note.launch)


def _end(child: "subprocess.Popen[bytes]", launch: str) -> None:
    """Let the driver end Ray in order, then kill every process of the launch that is still there."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE_TO_END)
    _kill_all(launch)
    child.wait()
    if child.stdin:
        child.stdin.close()


def _kill_all(launch: str) -> None:
    while pids := list(_processes(launch)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _processes(launch: str) -> Iterator[int]:
    wanted = f"{LAUNCH_VARIABLE}={launch}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended, or is not ours to read
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit` meanwhile, so that `finally` stands between it and the engine's processes."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread: whoever started it handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _launch_file(run: RunFolder) -> Path:
    return run.path / "launch.json"


def _is_sft(run: RunFolder) -> bool:
    return f"{main.__name__} sft" in read_text(run.launch, "the launch script")


def _write_launch_script(
    run: RunFolder, variables: Mapping[str, str], python: Sequence[str], words: Sequence[str]
) -> None:
    lines = [
        "#!/usr/bin/env bash",
        "# The engine of this run: `bash launch.sh` repeats it by hand, from the last checkpoint if there is one.",
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


def _write_jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
