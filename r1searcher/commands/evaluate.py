"""Commands that evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from r1searcher.commands.options import (
    DATASETS,
    MODELS,
    DataDir,
    JsonObject,
    JudgeOptions,
    Limit,
    ModelOptions,
    command,
)

app = typer.Typer()
_command = command(app, "Evaluate")

DatasetOfRows = Annotated[
    str | None,
    typer.Option(help="Dataset of all rows, for its official metric. [from the rows or the file name]"),
]


@_command
def evaluate(
    model: Annotated[str, typer.Argument(help=MODELS)],
    *,
    dataset: Annotated[list[str], typer.Option(help=f"{DATASETS} Repeatable.")],
    options: ModelOptions,
    judge: JudgeOptions,
    to: Annotated[Path | None, typer.Option(help="Output folder. [a folder in runs/evaluate]")] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers sampled per question, for pass@k and mean@k.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature. [0; 1 with several samples]")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Episodes that run at the same time; with 1, greedy tokens are reproducible.")
    ] = 64,
) -> None:
    """Evaluate a model on datasets; report metrics with 95 % confidence intervals."""
    from r1searcher.evaluation.commands import run_evaluate
    from r1searcher.evaluation.evaluate import EvaluationRequest

    run_evaluate(
        EvaluationRequest(
            model=model,
            datasets=dataset,
            to=to,
            data_dir=data_dir,
            limit=limit,
            samples=samples,
            temperature=temperature,
            judge=judge.request(),
            concurrency=concurrency,
            **options.request(),
        )
    )


@_command
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    model: Annotated[str, typer.Option(help=MODELS)],
    options: ModelOptions,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature; 0 is greedy.")] = 0.0,
) -> None:
    """Ask one question and watch the model think, search and answer."""
    from r1searcher.evaluation.ask import AskRequest, run_ask

    run_ask(AskRequest(question=question, model=model, temperature=temperature, **options.request()))


@_command
def score(
    predictions: Annotated[list[Path], typer.Argument(help="JSONL files of predictions, from r1s or elsewhere.")],
    judge: JudgeOptions,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per file and dataset.")] = False,
    dataset: DatasetOfRows = None,
    reward: Annotated[
        str | None, typer.Option(help="Compute a reward too: a recipe, RECIPE:stage1, or a reward part.")
    ] = None,
) -> None:
    """Score predictions: EM, F1, cover EM, official metrics and a judge, with 95 % confidence intervals."""
    from r1searcher.evaluation.commands import ScoreRequest, print_scores
    from r1searcher.evaluation.scoring import Scoring

    scoring = Scoring(dataset=dataset or "", reward=reward or "")
    print_scores(ScoreRequest(files=predictions, as_json=json_, judge=judge.request(), scoring=scoring))


@_command
def compare(
    a: Annotated[Path, typer.Argument(help="JSONL file of predictions.")],
    b: Annotated[Path, typer.Argument(help="JSONL file of predictions on the same questions.")],
    json_: JsonObject = False,
    dataset: DatasetOfRows = None,
) -> None:
    """Test whether B differs from A by more than chance (paired bootstrap over questions)."""
    from r1searcher.evaluation.commands import print_comparison

    print_comparison(a, b, json_, dataset)


@_command
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="A run or an evaluation; several for one page of all.")
    ],
    *,
    step: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Step of a run whose trajectories are included. Repeatable. [all, of long runs some]"),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Output folder. [FOLDER]")] = None,
) -> None:
    """Write report.html, report.md and report.json of runs or evaluations; of several, side by side."""
    from r1searcher.evaluation.reports import run_report

    run_report(folders, step or [], to)


@_command
def show(
    folder: Annotated[Path, typer.Argument(help="A run or an evaluation.")],
    *,
    step: Annotated[list[int] | None, typer.Option(min=1, help="Step of a run. Repeatable. [all]")] = None,
    words: Annotated[str, typer.Option(help="Only questions with these words.")] = "",
) -> None:
    """Read the episodes of a run or an evaluation in the terminal, and compare the samples of a question."""
    from r1searcher.evaluation.show import ShowRequest, run_show

    run_show(ShowRequest(folder=folder, steps=step or [], words=words))


@_command
def runs(
    folder: Annotated[Path, typer.Argument(help="Folder that the runs are in, at any depth up to 5.")] = Path("runs"),
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per run.")] = False,
) -> None:
    """List runs with their stage, state, step and last metrics."""
    from r1searcher.report.runs import run_list

    run_list(folder, json_)


@_command
def rescore(
    run: Annotated[Path, typer.Argument(help="Folder of a run of stage1 or stage2.")],
    *,
    recipe: Annotated[
        str, typer.Option(help="A recipe (for the run's stage, if it has it), RECIPE:stage1, or a reward part.")
    ],
    step: Annotated[list[int] | None, typer.Option(min=1, help="Step to score. Repeatable. [all]")] = None,
    examples: Annotated[int, typer.Option(min=0, metavar="N", help="Show the N episodes that change most.")] = 5,
    json_: JsonObject = False,
) -> None:
    """Score a run's stored episodes with another reward, and show what would change."""
    from r1searcher.report.rescore import RescoreRequest, run_rescore

    run_rescore(RescoreRequest(run=run, recipe=recipe, steps=step or [], examples=examples, as_json=json_))
