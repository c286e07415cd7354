"""What an episode needs of a tokenizer, and the one that Hugging Face tokenizers offer."""

from collections.abc import Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """Text to token ids and back; `decode(encode(text))` need not be `text` (unknown words, normalisation)."""

    special_tokens: tuple[str, ...]
    """Strings that `encode` turns into control tokens wherever they stand: text from outside must not hold them."""

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
        # Longest first, so that a token that holds another is replaced whole.
        self.special_tokens = tuple(sorted(specials | set(tokenizer.all_special_tokens), key=len, reverse=True))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, token_ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)
