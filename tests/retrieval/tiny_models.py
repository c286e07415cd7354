"""Models of random weights, small enough for every test run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = [f"w{n}" for n in range(200)]
"""The words of their vocabulary."""


def tiny_bert(folder: Path, kind: str, seed: int = 3, words: Sequence[str] = WORDS, **config: Any) -> Path:
    """A BERT of two layers of the class `kind`, with a tokenizer of whole words, as a Hugging Face folder."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    shape = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=160,
        initializer_range=0.5,
        **config,
    )
    getattr(transformers, kind)(shape).save_pretrained(folder)
    return folder
