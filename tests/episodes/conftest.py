"""Two real kinds of tokenizer, trained here, and a small real index."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.episodes.tokens import HuggingFaceTokenizer

SENTENCES = [
    "I need the river of Foxford. <|begin_of_query|> Foxford river<|end_of_query|>\n\n",
    "The documents say Arden. </think>\n\n<answer> Arden </answer>.",
    "So it is Oslo.</think><answer>Oslo</answer>.\n",
    "\n\n<|begin_of_documents|>\n(1)Title: Foxford Text: It lies on the Arden.\n<|end_of_documents|>\n\n<think>",
    "naïve café 東京 straße 🙂",
]
END = "<|im_end|>"


def byte_level_bpe(reserved_tags: bool) -> HuggingFaceTokenizer:
    """Byte-level BPE. Without reserved tags, merges run across a tag's end ("</answer>." is one token)."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES * 50, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)
    if reserved_tags:
        tokenizer.add_tokens(list(R1_SEARCHER.tags))
    return HuggingFaceTokenizer(tokenizer)


def word_level() -> HuggingFaceTokenizer:
    """Whole words and tags, everything else unknown: decoding does not give back what was encoded."""
    core = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=["[UNK]", END, *R1_SEARCHER.tags]))
    return HuggingFaceTokenizer(PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, unk_token="[UNK]"))


@pytest.fixture(scope="session", params=["byte-level BPE", "byte-level BPE with reserved tags", "word-level"])
def tokenizer(request: pytest.FixtureRequest) -> HuggingFaceTokenizer:
    if request.param == "word-level":
        return word_level()
    return byte_level_bpe(reserved_tags="reserved" in request.param)
