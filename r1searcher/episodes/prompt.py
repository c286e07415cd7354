"""Renders the prompt of a question, with or without the chat template."""

from importlib import resources
from pathlib import Path
from typing import Any

from r1searcher.common.files import read_text
from r1searcher.episodes.protocol import EpisodeProtocol
from r1searcher.errors import InputError

OF_EVERY_PROTOCOL = ("bare", "chatml")
"""Prompts without instructions, for a model that knows its protocol."""


def prompt_text(name: str, protocol: EpisodeProtocol) -> str:
    """The text of a prompt of `protocol`, or of a file. Raises `InputError` if it does not contain {question}."""
    if name in protocol.prompts:
        text = protocol.prompts[name]
    elif name in OF_EVERY_PROTOCOL:
        text = (resources.files("r1searcher.episodes") / "prompts" / f"{name}.txt").read_text("utf-8")
    else:
        try:
            text = read_text(Path(name), "the prompt file").replace("\r\n", "\n")
        except InputError as error:
            names = ", ".join((*protocol.prompts, *OF_EVERY_PROTOCOL))
            raise InputError(
                f"model.prompt: {error}; the prompts of the protocol {protocol.name} are {names}"
            ) from None
    if "{question}" not in text:
        raise InputError(f"model.prompt = {name!r}: the text does not contain {{question}}")
    return text.removesuffix("\n") if name != "chatml" else text


class PromptMaker:
    """Renders questions for one tokenizer. Every prompt ends with the protocol's `opening`.

    `tokenizer` is a transformers tokenizer; it is needed only where `chat_template` is true.
    """

    def __init__(
        self,
        text: str,
        protocol: EpisodeProtocol,
        chat_template: bool,
        tokenizer: Any,
        special_tokens: tuple[str, ...] = (),
    ) -> None:
        self._text = text
        self._protocol = protocol
        self._special_tokens = special_tokens
        self._template = tokenizer if chat_template else None
        if chat_template and not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "model.chat_template = true: this tokenizer has no chat template; set it to false and use "
                'model.prompt = "base" for a base model'
            )

    def __call__(self, question: str) -> str:
        # A question is untrusted text too: a control token in it would end the user's message.
        content = self._text.replace("{question}", self._protocol.sanitize(question, self._special_tokens))
        if self._template is not None:
            content = self._template.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        opening = self._protocol.opening
        return content if content.endswith(opening) else content + opening
