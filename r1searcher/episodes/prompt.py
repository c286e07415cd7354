"""A question as the model is asked it: a prompt text, through the chat template or as it stands."""

from importlib import resources
from pathlib import Path
from typing import Any

from r1searcher.common.files import read_text
from r1searcher.episodes.documents import sanitize
from r1searcher.episodes.protocol import THINK
from r1searcher.errors import InputError

SHIPPED = ("base", "chat", "bare", "chatml")


def prompt_text(name: str) -> str:
    """The text of a shipped prompt, or of a file. Raises `InputError` where it has no {question}."""
    if name in SHIPPED:
        text = (resources.files("r1searcher.episodes") / "prompts" / f"{name}.txt").read_text("utf-8")
    else:
        try:
            text = read_text(Path(name), "the prompt file").replace("\r\n", "\n")
        except InputError as error:
            raise InputError(f"model.prompt: {error}; the prompts of r1s are {', '.join(SHIPPED)}") from None
    if "{question}" not in text:
        raise InputError(f"model.prompt = {name!r}: the text has no {{question}} to put the question in")
    return text.removesuffix("\n") if name != "chatml" else text


class PromptMaker:
    """Renders questions for one tokenizer. Every prompt ends with the tag that opens the model's thinking.

    `tokenizer` is a transformers tokenizer; it is needed only where `chat_template` is true.
    """

    def __init__(self, text: str, chat_template: bool, tokenizer: Any, special_tokens: tuple[str, ...] = ()) -> None:
        self._text = text
        self._special_tokens = special_tokens
        self._template = tokenizer if chat_template else None
        if chat_template and not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "model.chat_template = true: this tokenizer has no chat template; set it to false and use "
                'model.prompt = "base" for a base model'
            )

    def __call__(self, question: str) -> str:
        # A question is text from outside too: a control token in it would end the user's message.
        content = self._text.replace("{question}", sanitize(question, self._special_tokens))
        if self._template is not None:
            content = self._template.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        return content if content.endswith(THINK) else content + THINK
