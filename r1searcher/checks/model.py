"""Whether there is a model and a protocol, and whether the prompts fit the context."""

from collections.abc import Sequence

from r1searcher.checks.base import RL_STAGES, Check, Skip, StageInputs, require_setting
from r1searcher.common.terminal import error_line
from r1searcher.episodes.loop import max_prompt_tokens
from r1searcher.episodes.prompt import PromptMaker, prompt_text
from r1searcher.episodes.protocol import EpisodeProtocol
from r1searcher.episodes.tokens import HuggingFaceTokenizer, load_tokenizer
from r1searcher.errors import InputError
from r1searcher.models.demo import model_folder
from r1searcher.questions.question import Question
from r1searcher.runs.resolved import limits_of, protocol_of


def _model(inputs: StageInputs) -> None:
    """`model.path` is set."""
    require_setting("model.path", inputs.settings.model.path, "a Hugging Face folder or name")


def _protocol(inputs: StageInputs) -> None:
    """`episode.protocol` exists."""
    inputs.protocol = protocol_of(inputs.settings)


def _prompt(inputs: StageInputs) -> None:
    """`model.prompt` exists or is a file with `{question}` in it."""
    if inputs.protocol is None:
        raise Skip("the protocol is not known")
    inputs.prompt = prompt_text(inputs.settings.model.prompt, inputs.protocol)


def _prompts(inputs: StageInputs) -> None:
    """The tokenizer can be loaded, and every prompt leaves space for a turn."""
    if inputs.train is None or inputs.protocol is None:
        raise Skip("there are no questions, or the protocol is not known")
    inputs.model = model_folder(inputs.settings.model.path, error_line)
    inputs.prompts = _rendered(inputs, inputs.train.questions, inputs.protocol)


def _rendered(inputs: StageInputs, questions: Sequence[Question], protocol: EpisodeProtocol) -> list[str]:
    """One prompt per question, for the tokenizer of the model.

    Raises `InputError` for those that leave no space for a turn: questions are not cut.
    """
    model = inputs.settings.model
    try:
        tokenizer = load_tokenizer(inputs.model, model.trust_remote_code)
    except InputError as error:
        raise InputError(f"model.path: {error}") from error
    inputs.tokenizer = tokenizer
    ours = HuggingFaceTokenizer(tokenizer)
    make = PromptMaker(inputs.prompt, protocol, model.chat_template, tokenizer, ours.special_tokens)
    prompts = [make(question.text) for question in questions]
    most = max_prompt_tokens(limits_of(inputs.settings))
    long = [q.id for q, prompt in zip(questions, prompts, strict=True) if len(ours.encode(prompt)) > most]
    if long:
        raise InputError(
            f"data.train: the prompts of {len(long)} questions (first: id {long[0]}) have more than {most} tokens and "
            "leave no space for a turn: raise episode.max_context, or leave these rows out"
        )
    return prompts


model = Check(_model)
protocol = Check(_protocol)
prompt = Check(_prompt, stages=RL_STAGES)
prompts = Check(_prompts, stages=RL_STAGES, costly=True)
