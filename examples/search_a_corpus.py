"""Index a small corpus and search it.

    python examples/search_a_corpus.py

From a shell: `r1s index-corpus passages.jsonl --to index` and `r1s search index "QUERY"`.
"""

import asyncio
import tempfile
from pathlib import Path

from r1searcher.corpora.passage import Passage
from r1searcher.retrieval.base import hits_of
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from r1searcher.retrieval.indexing.bm25 import build

PASSAGES = [
    Passage("1", "Silver Harbor", "Silver Harbor is a film of 1987, directed by Ada Quill."),
    Passage("2", "Ada Quill", "Ada Quill is a director. She was born in Foxford."),
    Passage("3", "Foxford", "Foxford is a town on the river Moy."),
]


async def main(folder: Path) -> None:
    manifest = build(PASSAGES, folder)
    print(f"indexed {manifest.passages} passages")

    index = EmbeddedIndex(folder)  # r1searcher.retrieval.open_retriever takes a folder or a server's URL instead
    try:
        queries = ["who directed Silver Harbor", "rivers in Foxford"]
        for query, hits in zip(queries, await hits_of(index, queries, top_k=2), strict=True):
            print(f"\n{query}")
            for hit in hits:
                print(f"  {hit.score:.3f}  {hit.passage.title}: {hit.passage.text}")
    finally:
        await index.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(Path(temporary) / "index"))
