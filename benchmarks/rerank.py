"""Reranking by a cross-encoder that this script trains from real passages: what it finds, and what batches save.

    python benchmarks/rerank.py ENCODER INDEX --corpus CORPUS --train QUESTIONS.jsonl --held QUESTIONS.jsonl --to FOLDER

ENCODER is a Hugging Face folder (all-MiniLM-L6-v2, for example), which gets a new head with one output; INDEX is a BM25
index of CORPUS. A training example is a query with one passage that answers it, `--negatives` that do not, of the first
20 by BM25, and `--others` from anywhere, which are easier to distinguish:

- a question of --train, and a passage that contains a gold answer;
- a sentence of a passage, and the rest of this passage; `--sentences` of them.

The loss is the cross-entropy of the right passage among those of the example. The table compares BM25 with the reranked
first 20 on --held: share of questions with a gold answer in the first k, mean reciprocal rank (MRR) among the 20, 95 %
intervals of the paired difference. Then one pair at a time is compared with all pairs in batches. With FOLDER already
there, training is left out.
"""

import argparse
import asyncio
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from r1searcher.corpora.passage import Passage
from r1searcher.corpora.readers import read_passages
from r1searcher.evaluation.recall import CUTOFFS, first_rank, measurable
from r1searcher.questions.question import Question
from r1searcher.questions.read import read_question_file
from r1searcher.report.intervals import interval
from r1searcher.retrieval import open_retriever
from r1searcher.retrieval.base import Hit, Retriever, hits_of
from r1searcher.retrieval.neural.cross_encoder import CrossEncoder
from r1searcher.retrieval.neural.text import text_of

CANDIDATES = 20
Example = tuple[str, list[str]]
"""A query, and its passages with the right one first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder")
    parser.add_argument("index")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--held", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True, help="the passages of the index, for their sentences")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--negatives", type=int, default=2)
    parser.add_argument("--others", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=96, help="tokens of a pair in training")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    asyncio.run(run(arguments))


async def run(arguments: argparse.Namespace) -> None:
    async with aclosing(open_retriever(arguments.index)) as retriever:
        if not arguments.to.exists():
            train(arguments, await examples(arguments, retriever))
        held = open_questions(arguments.held)
        found = await hits_of(retriever, [question.text for question in held], CANDIDATES)
    encoder = CrossEncoder(str(arguments.to))
    pairs = [(question.text, text_of(hit.passage)) for question, hits in zip(held, found, strict=True) for hit in hits]
    started = time.perf_counter()
    scores = iter(encoder.scores(pairs))
    seconds = time.perf_counter() - started
    reranked = [sorted((Hit(hit.passage, next(scores)) for hit in hits), key=lambda hit: -hit.score) for hits in found]
    console = Console()
    console.print(compared(held, found, reranked))
    console.print(f"{len(pairs):,} pairs, {1000 * seconds / len(pairs):.2f} ms per pair")
    console.print(batches(str(arguments.to), pairs[:1280]))


def compared(held: Sequence[Question], found: Sequence[Sequence[Hit]], reranked: Sequence[Sequence[Hit]]) -> Table:
    table = Table(title=f"{len(held)} held-out questions: gold answer in the first k passages")
    for heading in ("k", "BM25", "reranked", "difference", "95 % interval"):
        table.add_column(heading, justify="right")
    before, after = (
        [first_rank(question.gold_answers, hits) for question, hits in zip(held, ranking, strict=True)]
        for ranking in (found, reranked)
    )
    measures = {str(k): lambda rank, k=k: float(rank is not None and rank <= k) for k in CUTOFFS}
    measures["MRR"] = lambda rank: 1 / rank if rank else 0.0
    for name, measure in measures.items():
        old, new = (list(map(measure, ranks)) for ranks in (before, after))
        gain = interval([b - a for a, b in zip(old, new, strict=True)])
        table.add_row(
            name,
            f"{sum(old) / len(old):.3f}",
            f"{sum(new) / len(new):.3f}",
            f"{gain.value:+.3f}",
            f"{gain.low:+.3f} to {gain.high:+.3f}",
        )
    return table


def batches(model: str, pairs: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=f"{len(pairs):,} pairs")
    for heading in ("", "forward passes", "padding", "ms per pair", "ratio", "largest difference"):
        table.add_column(heading, justify="right")
    single, together = CrossEncoder(model, batch_size=1), CrossEncoder(model)
    single.scores(pairs[:8])
    together.scores(pairs[:64])
    taken, rows = [], []
    for name, encoder in (("one at a time", single), ("in batches", together)):
        passes, tokens, padding = encoder.work.passes, encoder.work.tokens, encoder.work.padding
        started = time.perf_counter()
        rows.append(encoder.scores(pairs))
        taken.append((time.perf_counter() - started) / len(pairs))
        table.add_row(
            name,
            str(encoder.work.passes - passes),
            f"{(encoder.work.padding - padding) / (encoder.work.tokens - tokens):.1%}",
            f"{1000 * taken[-1]:.2f}",
            f"{taken[0] / taken[-1]:.1f}",
            f"{max(abs(a - b) for a, b in zip(rows[0], rows[-1], strict=True)):.1e}",
        )
    return table


def open_questions(path: Path) -> list[Question]:
    return measurable(read_question_file(path, strict=True).questions)


async def examples(arguments: argparse.Namespace, retriever: Retriever) -> list[Example]:
    draw = random.Random(arguments.seed)
    corpus = list(read_passages(arguments.corpus))

    def example(query: str, right: Passage, wrong: Sequence[Passage]) -> Example:
        passages = [right, *draw.sample(wrong, arguments.negatives), *draw.sample(corpus, arguments.others)]
        return query, list(map(text_of, passages))

    found: list[Example] = []
    questions = open_questions(arguments.train)
    for question, hits in zip(
        questions, await hits_of(retriever, [question.text for question in questions], CANDIDATES), strict=True
    ):
        right = [hit.passage for hit in hits if first_rank(question.gold_answers, [hit]) == 1]
        wrong = [hit.passage for hit in hits if hit.passage not in right]
        if right and len(wrong) >= arguments.negatives:
            found.append(example(question.text, draw.choice(right), wrong))
    sentences = draw.sample(list(sentences_of(corpus)), arguments.sentences)
    for (query, passage), hits in zip(
        sentences, await hits_of(retriever, [query for query, _ in sentences], CANDIDATES), strict=True
    ):
        wrong = [hit.passage for hit in hits if hit.passage.id != passage.id]
        if len(wrong) >= arguments.negatives:
            rest = Passage(passage.id, passage.title, passage.text.replace(query, " "))
            found.append(example(query, rest, wrong))
    draw.shuffle(found)
    return found


def sentences_of(corpus: Sequence[Passage]) -> Iterator[tuple[str, Passage]]:
    for passage in corpus:
        sentences = re.split(r"(?<=[.!?]) +", passage.text)
        if len(sentences) > 2:
            yield sentences[1], passage


def train(arguments: argparse.Namespace, found: Sequence[Example]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.encoder)
    model = AutoModelForSequenceClassification.from_pretrained(arguments.encoder, num_labels=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    size, started, losses = 4, time.perf_counter(), []
    steps = len(found) // size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-4, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        batch = found[step * size : (step + 1) * size]
        queries = [query for query, passages in batch for _ in passages]
        passages = [passage for _, passages in batch for passage in passages]
        rows = tokenizer(
            *(queries, passages),
            truncation="longest_first",
            max_length=arguments.max_length,
            padding=True,
            return_tensors="pt",
        )
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(**rows).logits.view(len(batch), -1).float()
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(len(batch), dtype=torch.long))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if step % 20 == 19:
            left = (time.perf_counter() - started) / (step + 1) * (steps - step - 1)
            print(f"step {step + 1} of {steps}, loss {sum(losses[-20:]) / 20:.3f}, {left:.0f} s left", flush=True)
    model.save_pretrained(arguments.to)
    tokenizer.save_pretrained(arguments.to)


if __name__ == "__main__":
    main()
