"""The tokenizer interface of episodes, and its implementation with Hugging Face tokenizers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from r1searcher.errors import InputError


class Tokenizer(Protocol):
    """Text to token ids and back; `decode(encode(text))` need not be `text` (unknown words, normalization)."""

    special_tokens: tuple[str, ...]
    """Strings that `encode` turns into control tokens anywhere: untrusted text must not contain them."""

    def encode(self, text: str) -> list[int]:
        """Without tokens added at either end."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Special tokens included, nothing cleaned up."""
        ...


class HuggingFaceTokenizer:
    """`Tokenizer` over a transformers tokenizer (fast or slow)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        specials = {str(token) for token in added if getattr(token, "special", False)}
        # Longest first, so that a token that contains another is replaced as a whole.
        self.special_tokens = tuple(sorted(specials | set(tokenizer.all_special_tokens), key=len, reverse=True))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, token_ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)


def load_tokenizer(source: str | Path, trust_remote_code: bool = False) -> Any:
    """The transformers tokenizer of a Hugging Face folder or name.

    This is the loader of training and of vLLM: another one could split a text into other ids. It does not need torch.
    Raises `InputError` if `source` does not have a tokenizer, or if it is damaged or needs its own code.
    """
    source = str(source)
    if not os.path.isdir(source) and not may_be_on_hub(source):
        raise InputError(f"no tokenizer can be loaded from {source[:300]!r}: it is not a folder of a model")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it advises to install torch
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raises bare `Exception` for a damaged file, and the hub errors of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"no tokenizer can be loaded from {source!r} ({reason})") from error


def may_be_on_hub(name: str) -> bool:
    """Whether a model's name can be a hub name, `name` or `owner/name`, rather than a nonexistent path."""
    owner = name.partition("/")[0]
    is_below_a_file = os.path.lexists(owner) and not os.path.isdir(owner)
    return not (name.startswith((".", "/", "~")) or name.count("/") > 1 or os.path.lexists(name) or is_below_a_file)
