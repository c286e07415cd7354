"""Runs the check items and collects what they found."""

from collections.abc import Iterator

from r1searcher.checks.base import Check, CheckResult, Found, Skip, StageInputs, Status
from r1searcher.common.registry import Registry
from r1searcher.errors import InputError, R1Error

CHECKS: Registry[Check] = Registry(
    "check",
    "r1searcher.checks",
    {
        "packages": "r1searcher.checks.machine:packages",
        "reward": "r1searcher.checks.reward:reward",
        "training-data": "r1searcher.checks.data:training_data",
        "held-out-data": "r1searcher.checks.data:held_out_data",
        "gold-answers": "r1searcher.checks.data:gold_answers",
        "overlap": "r1searcher.checks.data:held_out_overlap",
        "questions-per-step": "r1searcher.checks.data:questions_per_step",
        "algorithm": "r1searcher.checks.reward:algorithm",
        "watch-rules": "r1searcher.checks.watch:rules",
        "tracking": "r1searcher.checks.tracking:tracking",
        "device": "r1searcher.checks.machine:device",
        "versions": "r1searcher.checks.machine:versions",
        "attention": "r1searcher.checks.machine:attention",
        "compiler": "r1searcher.checks.machine:compiler",
        "placement": "r1searcher.checks.placement:placement",
        "retriever": "r1searcher.checks.retriever:retriever",
        "model": "r1searcher.checks.model:model",
        "protocol": "r1searcher.checks.model:protocol",
        "prompt": "r1searcher.checks.model:prompt",
        "traces": "r1searcher.checks.data:traces",
        "prompts": "r1searcher.checks.model:prompts",
        "instruction": "r1searcher.checks.tokenizer:instruction",
        "tokenizer": "r1searcher.checks.tokenizer:tokenizer",
        "corpus": "r1searcher.checks.retriever:corpus",
        "context": "r1searcher.checks.episodes:context",
        "reward-cases": "r1searcher.checks.episodes:reward_cases",
        "disk": "r1searcher.checks.space:disk",
        "host-memory": "r1searcher.checks.space:host",
        "cluster": "r1searcher.checks.cluster:cluster",
    },
    Check,
)
"""In the order in which their problems are reported."""


def run_checks(inputs: StageInputs, *, thorough: bool = False) -> Iterator[CheckResult]:
    """Runs every item of the stage and yields its result as soon as it is known; costly items come last."""
    items = [
        (name, check)
        for name, check in CHECKS.items()
        if inputs.stage in check.stages and (thorough or not check.thorough)
    ]
    passed = True
    for name, check in sorted(items, key=lambda item: item[1].costly):
        if check.costly and not passed:
            yield CheckResult(name, Status.SKIPPED, "other checks found problems")
            continue
        result = _result(name, check, inputs)
        passed = passed and result.status is not Status.PROBLEM
        yield result


def _result(name: str, check: Check, inputs: StageInputs) -> CheckResult:
    try:
        found = check.run(inputs) or Found()
    except Skip as skip:
        return CheckResult(name, Status.SKIPPED, str(skip))
    except R1Error as error:
        return CheckResult(name, Status.PROBLEM, str(error))
    if found.warnings:
        return CheckResult(name, Status.WARNING, "; ".join(found.warnings))
    return CheckResult(name, Status.OK, found.said)


def require_checks(inputs: StageInputs) -> None:
    """Runs every item. Raises one `InputError` with all problems."""
    problems = [result.message for result in run_checks(inputs) if result.status is Status.PROBLEM]
    if problems:
        raise InputError("nothing was started:\n" + "\n".join(f"  {problem}" for problem in problems))
