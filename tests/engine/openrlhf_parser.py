"""Whether OpenRLHF's own main accepts command lines: a program that reads them as JSON, one list of words per line.

It runs `openrlhf.cli.train_ppo_ray` as `__main__` for each, in one Ray session with logical GPUs: its argument parser,
every assert, and every placement group that it creates are real. The classes of the processes that would load a model
are replaced, and the trainer, at whose start a case ends. Prints a JSON list per line: whether it reached the trainer,
the message of the assert, the micro-batches of each process of the trained model, the GPUs that were asked for, and
the flags that the engine replaced by values of its own.
"""

import contextlib
import io
import itertools
import json
import os
import runpy
import sys
import tempfile
from operator import attrgetter
from types import SimpleNamespace
from typing import Any
from unittest import mock

GPUS = 64
"""Logical ones: more than any case asks for, because Ray waits without end for those that are missing."""


class Reached(Exception):
    """Raised where the trainer would be started, with the settings and the group of the trained model's processes."""


class Process:
    """Replaces the handle of an actor. `rows` are the numbers of micro-batches that it was given."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __getattr__(self, method: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *words, **_: self._call(method, *words))

    def _call(self, method: str, *words: Any) -> Any:
        import ray

        if method == "execute_batch":
            _, _, start, end = words
            self.rows.append(end - start)
        return ray.put(("127.0.0.1", 1))  # the address and port of a group's first process


class Processes:
    """Replaces an actor class. `gpus` are those that its actors ask for outside of a placement group."""

    def __init__(self) -> None:
        self.gpus = 0.0

    def options(self, *, num_gpus: float, scheduling_strategy: Any = None, **_: Any) -> SimpleNamespace:
        self.gpus += num_gpus if scheduling_strategy is None else 0
        return SimpleNamespace(remote=lambda *_, **__: Process())


def start_trainer(_model: str, strategy: Any, group: Any, *_: Any, **__: Any) -> None:
    raise Reached(strategy.args, group)


def replaced_flags(words: list[str], settings: Any) -> list[str]:
    """Flags whose value in the engine's own settings is another one than that of the command line.

    A lower bound that it puts before a single upper one (`is_correction_threshold`) counts as the same.
    """
    given: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            given[word[2:]] = []
        else:
            given[list(given)[-1]].append(word)
    wanted = {flag: as_words(values or True) for flag, values in given.items()}
    return [flag for flag, words in wanted.items() if as_words(attrgetter(flag)(settings))[-len(words) :] != words]


def as_words(value: Any) -> list[str]:
    """A value as the words of a command line; numbers in one spelling."""
    values = value if isinstance(value, list | tuple) else [value]
    return [str(number(one)) for one in values]


def number(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def rows_per_process(words: list[str], group: Any) -> list[int]:
    """How many micro-batches of a step each process of the trained model gets, by OpenRLHF's own division."""
    flags = dict(itertools.pairwise(words))
    rollouts = int(flags["--rollout.batch_size"]) * int(flags["--rollout.n_samples_per_prompt"])
    batches = -(-rollouts // int(flags["--rollout.micro_batch_size"]))
    group.async_run_method_batch("any", sequences=list(range(batches)))
    return [sum(process.rows) for process in group._actor_handlers]


def answer(words: list[str]) -> list[Any]:
    """[accepted, message, micro-batches per process, GPUs, replaced flags]"""
    processes = Processes()
    printed = io.StringIO()
    try:
        with replaced(words, processes), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=False)
    except Reached as reached:
        settings, group = reached.args
        gpus = processes.gpus + gpus_of_groups()
        return [True, "", rows_per_process(words, group), gpus, replaced_flags(words, settings)]
    except AssertionError as error:
        return [False, str(error) or "an assert", [], 0, []]
    except SystemExit:
        return [False, printed.getvalue()[-300:], [], 0, []]
    finally:
        remove_groups()
    return [False, "it returned", [], 0, []]


@contextlib.contextmanager
def replaced(words: list[str], processes: Processes) -> Any:
    """OpenRLHF without the classes that load a model, and with these words as its command line."""
    from openrlhf.trainer import ppo_trainer, ppo_trainer_async
    from openrlhf.trainer.ray import launcher, ppo_actor, ppo_critic, vllm_engine

    trainer = SimpleNamespace(remote=start_trainer)
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (vllm_engine, "RolloutRayActor", processes),
            (launcher, "ReferenceModelActor", processes),
            (ppo_actor, "PolicyModelActor", processes),
            (ppo_critic, "CriticModelActor", processes),
            (ppo_trainer, "PPOTrainer", trainer),
            (ppo_trainer_async, "PPOTrainerAsync", trainer),
            (sys, "argv", ["train_ppo_ray", *words]),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        yield


def groups() -> dict[str, Any]:
    """Ray's own table of the placement groups that hold GPUs now."""
    import ray

    table: dict[str, Any] = ray.util.placement_group_table()
    return {name: group for name, group in table.items() if group["state"] == "CREATED"}


def gpus_of_groups() -> float:
    return sum(bundle["GPU"] for group in groups().values() for bundle in group["bundles"].values())


def remove_groups() -> None:
    import ray
    from ray.util.placement_group import PlacementGroup, PlacementGroupID

    for name in groups():
        ray.util.remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def main() -> None:
    import ray

    from r1searcher.engine.openrlhf import workers

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not come between the answers
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray refuses more GPUs than are listed there
    workers.setup()
    with tempfile.TemporaryDirectory(prefix="r1s-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            "local",
            num_gpus=GPUS,
            num_cpus=GPUS,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
            _system_config={"prestart_worker_first_driver": False},  # it would start 64 processes
        )
        for line in sys.stdin:
            answers.write(json.dumps(answer(json.loads(line))) + "\n")
            answers.flush()
        ray.shutdown()


if __name__ == "__main__":
    main()
