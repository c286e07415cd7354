"""The records of a training run for its report."""

from collections.abc import Sequence

from r1searcher.errors import InputError
from r1searcher.report.contents import Records
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import read_manifest, read_metrics, trajectory_rows
from r1searcher.runs.resolved import read_run


def records_of_run(run: RunFolder, steps: Sequence[int] = ()) -> Records:
    """The metrics of all steps, and the trajectories of `steps`; without any, of the first and the last one recorded.

    Steps that were sampled ahead of training and not trained are chosen only if `steps` names them, or if no step was.

    Raises `InputError` for a damaged file, and if no step or one of `steps` was not recorded.
    """
    stage, settings = read_run(run)
    recorded = dict(run.recorded_steps())
    if not recorded:
        raise InputError(
            f"{run.path} has no trajectories to report: "
            + ("SFT runs no episodes" if stage == "sft" else "no step was recorded yet")
        )
    if missing := [step for step in steps if step not in recorded]:
        raise InputError(f"{run.path} has no trajectories of step {missing[0]}: it has {_spans(list(recorded))}")
    metrics = read_metrics(run)
    trained = [step for step in recorded if metrics and step <= metrics[-1]["step"]] or list(recorded)
    chosen = sorted(set(steps or (min(trained), max(trained))))
    manifest = read_manifest(run)
    return Records(
        title=str(run.path),
        manifest=manifest.model_dump() if manifest else {},
        trajectories=[{**row, "step": step} for step in chosen for row in trajectory_rows(recorded[step])],
        grouped_by="step",
        metrics=metrics,
        max_answer_words=settings.reward.max_answer_words,
        format_rules=settings.reward.format_rules,
    )


def _spans(steps: Sequence[int]) -> str:
    """A short description of steps.

    >>> _spans([1, 2, 3, 7])
    'steps 1 to 3, 7'
    """
    spans: list[list[int]] = []
    for step in steps:
        if spans and step == spans[-1][-1] + 1:
            spans[-1].append(step)
        else:
            spans.append([step])
    return "steps " + ", ".join(f"{s[0]} to {s[-1]}" if len(s) > 1 else str(s[0]) for s in spans)
