"""The demo's world on disk: passages, index, questions and SFT traces."""

import asyncio
from pathlib import Path
from typing import Any

from r1searcher.common.files import write_json, write_rows
from r1searcher.common.records import Record, read_record_if_there
from r1searcher.common.terminal import SafeConsole
from r1searcher.config.settings import load
from r1searcher.demo.atlas import Atlas, AtlasQuestion, make_atlas
from r1searcher.demo.traces import Trace, make_traces
from r1searcher.episodes.prompt import PromptMaker, prompt_text
from r1searcher.episodes.protocol import EpisodeProtocol
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.questions.traces import write_traces
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.base import IndexOptions
from r1searcher.retrieval.indexing.bm25 import build
from r1searcher.retrieval.indexing.manifest import is_index
from r1searcher.runs.records import Str

TRACES = 720
"""SFT traces written; the preset's SFT takes as many as its steps need."""


class World(Record):
    """`world.json`: the seed of the world in a folder and the protocol of its traces, written once it is complete."""

    seed: int
    protocol: Str


def make_world(folder: Path, seed: int, console: SafeConsole, protocol: EpisodeProtocol = R1_SEARCHER) -> Path:
    """Write the atlas, its index and the SFT traces; a folder with `world.json` is finished."""
    done = folder / "world.json"
    before = read_record_if_there(done, World, f"remove {folder}, and the same command makes it again")
    if before is not None and (before.seed, before.protocol) == (seed, protocol.name):
        return folder
    done.unlink(missing_ok=True)
    atlas = make_atlas(seed)
    write_rows(folder / "passages.jsonl", ({"id": p.id, "title": p.title, "text": p.text} for p in atlas.passages))
    write_rows(folder / "train.jsonl", map(_row, atlas.train))
    write_rows(folder / "held_out.jsonl", map(_row, atlas.held_out))
    options = IndexOptions(overwrite=is_index(folder / "index"), restart=True)
    build(atlas.passages, folder / "index", options)
    traces = _traces(atlas, folder / "index", seed, protocol)
    write_traces(folder / "traces.jsonl", ((trace.question.id, trace.segments) for trace in traces))
    write_json(done, {"seed": seed, "protocol": protocol.name, "passages": len(atlas.passages)})
    two = sum(len(q.hops) == 2 for q in atlas.train)
    console.print(
        f"{len(atlas.passages)} passages about films, people and towns that don't exist; {len(atlas.train)} training "
        f"questions ({two} need two searches), {len(atlas.held_out)} held-out questions about other films, people and "
        f"towns · {folder}",
        soft_wrap=True,
    )
    return folder


def _row(q: AtlasQuestion) -> dict[str, Any]:
    return {"id": q.id, "question": q.question, "gold_answers": list(q.gold_answers), "hops": len(q.hops)}


def _traces(atlas: Atlas, index: Path, seed: int, protocol: EpisodeProtocol) -> list[Trace]:
    """SFT traces with the prompt and documents of the demo's settings."""
    settings = load("sft", preset="demo")
    prompt = PromptMaker(prompt_text(settings.model.prompt, protocol), protocol, chat_template=False, tokenizer=None)
    return asyncio.run(
        make_traces(
            atlas.train,
            EmbeddedIndex(index),
            prompt,
            TRACES,
            protocol=protocol,
            top_k=settings.episode.top_k,
            max_document_words=settings.episode.max_document_words,
            seed=seed,
        )
    )
