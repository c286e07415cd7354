"""Whether the data of the settings can be read, and is enough for one step."""

from pathlib import Path

from r1searcher.checks.base import RL_STAGES, Check, Found, Skip, StageInputs, require_setting
from r1searcher.errors import InputError
from r1searcher.questions.named import open_dataset
from r1searcher.questions.quality import gold_answer_faults, overlap
from r1searcher.questions.traces import read_traces
from r1searcher.rewards.metrics import has_words, is_yes_no, normalize

TOLERATED = 0.1
"""Share of questions up to which a fault of their gold answers is a warning."""

TOLERATED_OVERLAP = 0.01
"""Share of held-out questions that may be trained on."""


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


def _gold_answers(inputs: StageInputs) -> Found:
    """An answer can match the gold answers: they do not normalize to nothing, and are not longer than the format allows
    or a list written as text. Up to 10 % of the questions it is a warning."""
    if inputs.train is None or not inputs.train.questions:
        raise Skip("there are no questions")
    questions, limit = inputs.train.questions, inputs.settings.reward.max_answer_words
    faults = gold_answer_faults(questions, limit)
    for fault in sorted(faults, key=lambda fault: -fault.count):
        if fault.count > TOLERATED * len(questions):
            raise InputError(f"data.train: {fault.said}; {fault.remedy}")
    yes_no = sum(is_yes_no(question.gold_answers[0]) for question in questions)
    inside = sum(has_words(normalize(q.text), gold) for q in questions if (gold := normalize(q.gold_answers[0])))
    said = (
        f"{len(questions):,} questions; yes or no: {yes_no / len(questions):.0%}; answer in the question: "
        f"{inside / len(questions):.0%}"
    )
    return Found(said, tuple(f"data.train: {fault.said}" for fault in faults))


def _overlap(inputs: StageInputs) -> Found:
    """Held-out questions are not in the training data, ignoring case, articles and punctuation."""
    if inputs.train is None or inputs.held_out is None:
        raise Skip("there are no held-out questions")
    held_out = inputs.held_out.questions
    shared = overlap(held_out, inputs.train.questions)
    if shared > TOLERATED_OVERLAP * len(held_out):
        raise InputError(
            f"data.held_out: {shared:,} of {len(held_out):,} questions are in data.train too, so its results would "
            "count what was memorized; remove them from one of the two"
        )
    return Found(
        f"{len(held_out):,} held-out questions", (f"data.held_out: {shared} are in data.train too",) * bool(shared)
    )


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
gold_answers = Check(_gold_answers, stages=RL_STAGES, thorough=True)
held_out_overlap = Check(_overlap, stages=RL_STAGES, thorough=True)
questions_per_step = Check(_questions_per_step, stages=RL_STAGES)
traces = Check(_traces, stages=("sft",))
