"""A toy world for the engine: a model of 0.2 M parameters, its tokenizer, and questions about nothing."""

import json
import random
from pathlib import Path

TAGS = (
    "<think>", "</think>", "<answer>", "</answer>",
    "<|begin_of_query|>", "<|end_of_query|>", "<|begin_of_documents|>", "<|end_of_documents|>",
)  # fmt: skip
TOWNS = ("barado", "cordell", "fenwick", "gormis", "halvan", "miradell", "torstead", "delvan")


def make_model(folder: Path, seed: int = 0) -> Path:
    """An untrained Qwen2 with a byte-level BPE tokenizer in which each protocol tag is one token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    rng = random.Random(0)
    corpus = [f"Where is {rng.choice(TOWNS)}? {rng.choice(TOWNS)} is in {rng.choice(TOWNS)}." for _ in range(500)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=360,
            special_tokens=["<|endoftext|>", *TAGS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=0,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def prompt_rows(count: int) -> list[tuple[str, str]]:
    """(prompt, label) pairs; the label is what our executor reads."""
    rows = []
    for number in range(count):
        town = TOWNS[number % len(TOWNS)]
        label = {"id": str(number), "question": f"Where is {town}? {number}", "golds": [town]}
        rows.append((f"Where is {town}? {number}<think>", json.dumps(label)))
    return rows
