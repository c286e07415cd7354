"""Renders a prompt and its response for the SFT, with or without the chat template."""

from typing import Any

from r1searcher.episodes.protocol import EpisodeProtocol
from r1searcher.episodes.tokens import HuggingFaceTokenizer
from r1searcher.episodes.trajectory import Author
from r1searcher.errors import InputError
from r1searcher.questions.traces import Exchange, Trace


class ExchangeMaker:
    """Renders exchanges for one tokenizer of transformers. The response includes what ends it, so that the model stops.

    Lines stay as they are; in each, the tags of `protocol` and the special tokens of the tokenizer lose their meaning.
    Raises `InputError` for a tokenizer without a chat template or end-of-sequence token where that is needed.
    """

    def __init__(self, tokenizer: Any, chat_template: bool, protocol: EpisodeProtocol) -> None:
        self._tokenizer, self._chat_template, self._protocol = tokenizer, chat_template, protocol
        self._special_tokens = HuggingFaceTokenizer(tokenizer).special_tokens
        if chat_template and not getattr(tokenizer, "chat_template", None):
            raise InputError("model.chat_template = true: this tokenizer has no chat template; set it to false")
        if not chat_template and not tokenizer.eos_token:
            raise InputError(
                "model.chat_template = false: this tokenizer has no end-of-sequence token, which ends rows"
            )

    def __call__(self, exchange: Exchange) -> Trace:
        prompt, response = self._clean(exchange.prompt), self._clean(exchange.response)
        if not self._chat_template:
            return (Author.PROMPT, f"{prompt}\n\n"), (Author.MODEL, response + self._tokenizer.eos_token)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        asked = self._tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        whole = self._tokenizer.apply_chat_template(messages, tokenize=False)
        if not whole.startswith(asked):
            raise InputError(
                "model.chat_template = true: this chat template writes a response into another text than the one that "
                "asks for it; set it to false"
            )
        return (Author.PROMPT, asked), (Author.MODEL, whole[len(asked) :].rstrip())

    def _clean(self, text: str) -> str:
        return "\n".join(self._protocol.sanitize(line, self._special_tokens) for line in text.splitlines()).strip()
