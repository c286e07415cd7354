"""What OpenRLHF's own main says to command lines: a program that reads them as JSON, one list of words per line.

It runs `openrlhf.cli.train_ppo_ray` as `__main__` for each, with its argument parser and every assert, in `train` too.
Ray, the engines and the models alone are replaced, at the first call that would start one. Prints a JSON list per line:
whether it came to the trainer, the message of the assert, and the rows that each process of the trained model takes.
"""

import contextlib
import importlib
import io
import itertools
import json
import os
import runpy
import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock


class Reached(Exception):
    """Raised where the trainer would be started."""


class Group:
    """Replaces `RayActorGroup` without starting anything."""

    def __init__(self, num_nodes: int, num_gpus_per_node: int, kind: Any, **options: Any) -> None:
        pass


def start_trainer(*_: Any, **__: Any) -> None:
    raise Reached


def rows_per_process(words: list[str]) -> list[int]:
    """How many micro-batches of a step each process of the trained model gets, by OpenRLHF's own division."""
    import ray
    from openrlhf.trainer.ray.launcher import RayActorGroup

    flags = dict(itertools.pairwise(words))
    processes = int(flags["--actor.num_gpus_per_node"]) * int(flags.get("--actor.num_nodes", 1))
    rollouts = int(flags["--rollout.batch_size"]) * int(flags["--rollout.n_samples_per_prompt"])
    batches = -(-rollouts // int(flags["--rollout.micro_batch_size"]))
    taken: list[int] = []

    def execute(_method: str, _data: Any, start: int, end: int) -> None:
        taken.append(end - start)

    process = SimpleNamespace(execute_batch=SimpleNamespace(remote=execute))
    group = SimpleNamespace(_actor_handlers=[process] * processes, duplicate_actors=1)
    with mock.patch.object(ray, "put", lambda data: data):
        RayActorGroup.async_run_method_batch(group, "any", sequences=list(range(batches)))
    return taken


def answer(words: list[str]) -> list[Any]:
    """[accepted, message, micro-batches per process]"""
    refusal = refused(words)
    return [False, refusal, []] if refusal else [True, "", rows_per_process(words)]


def placement_group(*_: Any, **__: Any) -> SimpleNamespace:
    return SimpleNamespace(ready=lambda: None)


def refused(words: list[str]) -> str:
    """What OpenRLHF's main objects to; empty where it comes to the trainer."""
    import openrlhf.trainer.ray as engines
    import ray
    from openrlhf.trainer import ppo_trainer, ppo_trainer_async
    from openrlhf.trainer.ray import launcher

    replaced = SimpleNamespace(remote=start_trainer)
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (ray, "is_initialized", lambda: True),
            (ray, "get", lambda *_: None),
            (importlib.import_module("ray.util.placement_group"), "placement_group", placement_group),
            (engines, "create_vllm_engines", lambda *_, **__: []),
            (launcher, "RayActorGroup", Group),
            (ppo_trainer, "PPOTrainer", replaced),
            (ppo_trainer_async, "PPOTrainerAsync", replaced),
            (sys, "argv", ["train_ppo_ray", *words]),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        printed = io.StringIO()
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(contextlib.redirect_stderr(printed))
        try:
            runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=False)
        except Reached:
            return ""
        except AssertionError as error:
            return str(error) or "an assert"
        except SystemExit:
            return printed.getvalue()[-300:]
    return "it returned"


def main() -> None:
    from r1searcher.engine.openrlhf import workers

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not come between the answers
    workers.setup()
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
