"""Whether the data of the settings can be read, and is enough for one step."""

from pathlib import Path

from r1searcher.checks.base import RL_STAGES, Check, Skip, StageInputs, require_setting
from r1searcher.errors import InputError
from r1searcher.questions.named import open_dataset
from r1searcher.questions.traces import read_traces


def _training_data(inputs: StageInputs) -> None:
    """`data.train` can be read."""
    data = inputs.settings.data
    require_setting("data.train", data.train, "a file of questions or a dataset's name")
    inputs.train = open_dataset(data.train, data.folder, limit=data.limit, strict=True, training=True)


def _held_out_data(inputs: StageInputs) -> None:
    """`data.held_out` can be read."""
    data = inputs.settings.data
    if not data.held_out:
        raise Skip("data.held_out is not set")
    inputs.held_out = open_dataset(data.held_out, data.folder, strict=True)


def _questions_per_step(inputs: StageInputs) -> None:
    """There are enough questions for one step."""
    if inputs.train is None:
        raise Skip("there are no questions to count")
    there, needed = len(inputs.train.questions), inputs.settings.rl.questions_per_step
    if 0 < there < needed:
        raise InputError(
            f"data.train has {there} questions, and one step needs rl.questions_per_step = {needed}: lower it, or add "
            "questions"
        )


def _traces(inputs: StageInputs) -> None:
    """`data.traces` can be read, and has enough traces for one update."""
    file, needed = inputs.settings.data.traces, inputs.settings.sft.batch_size
    require_setting("data.traces", file, "a JSONL file of traces")
    inputs.traces = list(read_traces(Path(file)))
    if len(inputs.traces) < needed:
        raise InputError(
            f"data.traces has {len(inputs.traces)} traces, and one update needs sft.batch_size = {needed}: lower it, "
            "or add traces"
        )


training_data = Check(_training_data, stages=RL_STAGES)
held_out_data = Check(_held_out_data, stages=RL_STAGES)
questions_per_step = Check(_questions_per_step, stages=RL_STAGES)
traces = Check(_traces, stages=("sft",))
