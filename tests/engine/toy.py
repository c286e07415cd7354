"""A toy world for the engine: a model of 0.4 M parameters, and towns inside other towns."""

import json
import os
import random
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from r1searcher.corpora.passage import Passage
from r1searcher.episodes.protocol import Document
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.runs.folder import RunFolder

HANG = 3600
"""Seconds after which a command is taken to hang: far more than the slowest machine needs."""

TOWNS = ("barado", "cordell", "fenwick", "gormis", "halvan", "miradell", "torstead", "delvan")


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5": ("qwen2", {"tie_word_embeddings": True}),
    "Qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": False}),
    "Llama": ("llama", {"tie_word_embeddings": False}),
    "Gemma": (
        "gemma3_text",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "SmolLM3": ("smollm3", {"no_rope_layers": [1, 0, 1], "tie_word_embeddings": True}),
}
"""Families of models: transformers' name, and what is particular about their configuration."""


def make_model(
    folder: Path,
    texts: Iterable[str] | None = None,
    vocab_size: int = 360,
    tags: Sequence[str] = R1_SEARCHER.tags,
    family: str = "Qwen2.5",
) -> Path:
    """An untrained model; its byte-level BPE, learned from `texts`, has a token for each protocol tag."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts or sentences(),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<|endoftext|>", *tags],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    kind, particular = FAMILIES[family]
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        **particular,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def sentences() -> list[str]:
    """What the toy world's questions and documents are made of."""
    rng = random.Random(0)
    return [f"Where is {rng.choice(TOWNS)}? {rng.choice(TOWNS)} is in {rng.choice(TOWNS)}." for _ in range(500)]


@dataclass(frozen=True)
class World:
    folder: Path
    settings: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "r1searcher.cli", *words]

    def run(self, *words: str) -> None:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=HANG, env=one_thread())
        logs = "".join(f.read_text("utf-8", "replace")[-4000:] for f in self.folder.glob("runs/*/engine.log"))
        assert done.returncode == 0, done.stderr + logs

    def folder_of(self, name: str) -> RunFolder:
        return RunFolder(self.folder / "runs" / name)

    def with_retrieval(self, name: str, table: dict[str, Any]) -> "World":
        """The same world, with another retriever in its settings."""
        settings = {**tomllib.loads(self.settings.read_text("utf-8")), "retrieval": table}
        file = self.folder / f"{name}.toml"
        file.write_text(tomli_w.dumps(settings))
        return World(self.folder, file)

    def stage_words(self, name: str, *more: str, stage: str = "stage1") -> tuple[str, ...]:
        """The command of a stage that starts with the model of the run "sft"."""
        start = str(self.folder_of("sft").path)
        return (stage, str(self.settings), "--from", start, "--name", name, *more)

    def stage1(self, name: str, *more: str) -> RunFolder:
        self.run(*self.stage_words(name, *more))
        return self.folder_of(name)


def one_thread() -> dict[str, str]:
    """The environment with a single thread a process: a tiny model gains nothing from more and waits for them."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def make_world(folder: Path, tags: Sequence[str] = R1_SEARCHER.tags, family: str = "Qwen2.5") -> World:
    """A corpus of a sentence a town, questions about them, an untrained model, traces, and settings for all of it."""
    regions = towns_and_regions()
    passages = [Passage(town, town, f"{town} is in {region}.") for town, region in regions.items()]
    build(passages, folder / "index")
    questions = [
        {"id": f"{town}-{number}", "question": f"Where is {town}?", "gold_answers": [region]}
        for number in range(12)
        for town, region in regions.items()
    ]
    write_rows(folder / "questions.jsonl", questions)
    (folder / "prompt.txt").write_text("{question}\n")
    rng = random.Random(0)
    write_rows(folder / "traces.jsonl", [trace(*rng.choice(list(regions.items())), number) for number in range(320)])
    settings = {
        "output": str(folder / "runs"),
        "seed": 3,
        "model": {
            "path": str(make_model(folder / "model", tags=tags, family=family)),
            "prompt": str(folder / "prompt.txt"),
            "chat_template": False,
        },
        "data": {"train": str(folder / "questions.jsonl"), "traces": str(folder / "traces.jsonl")},
        "retrieval": {"url": str(folder / "index")},
        "episode": {"max_searches": 1, "max_new_tokens": 16, "max_context": 128, "top_k": 1},
        "rl": {
            "questions_per_step": 8,
            "samples_per_question": 8,
            "batch_size": 64,
            "micro_batch_size": 32,
            "learning_rate": 1e-3,
            "steps": 6,
        },
        "sft": {"learning_rate": 5e-3, "batch_size": 12, "micro_batch_size": 12},
        "engine": {"device": "cpu", "precision": "fp32"},
        "checkpoint": {"every": 2},
        "evaluation": {"questions": 0},
    }
    (folder / "settings.toml").write_text(tomli_w.dumps(settings))
    return World(folder, folder / "settings.toml")


def towns_and_regions() -> dict[str, str]:
    return {town: TOWNS[(number + 3) % len(TOWNS)] for number, town in enumerate(TOWNS)}


def trace(town: str, region: str, number: int) -> dict:
    """Every third trace searches; the others answer at once."""
    segments = [["prompt", f"Where is {town}?\n<think>"]]
    if number % 3 == 0:
        document = R1_SEARCHER.render([Document(town, f"{town} is in {region}.")])
        segments += [["model", f"<|begin_of_query|>{town}<|end_of_query|>"], ["environment", document]]
    return {"segments": [*segments, ["model", f"</think><answer>{region}</answer>"]]}


def write_rows(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
