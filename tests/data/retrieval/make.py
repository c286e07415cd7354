"""Makes this folder's fixture: passages, questions, queries, and the hits that Lucene finds.

    python tests/data/retrieval/make.py JARS FOLDER

JARS holds Lucene's jars (core and analysis-common, 9.12 or later); Java 17 or later runs Hits.java with them. FOLDER
holds c20k.jsonl, bench_questions.txt, bench_queries.txt and Lucene's hits on the whole corpus,
hits_lucene_c20k_*.jsonl. Nothing of r1searcher runs here, so that the hits are a reference for it.
"""

import base64
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SEED = 7
EACH = 40
"""Questions, and as many queries."""


def cut(folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """A draw of questions and queries, and every passage of their top 10 in the whole corpus, in its order."""
    rng = random.Random(SEED)
    texts: list[str] = []
    wanted: set[str] = set()
    for kind in ("questions", "queries"):
        lines = (folder / f"bench_{kind}.txt").read_text("utf-8").split("\n")
        hits = (folder / f"hits_lucene_c20k_{kind}.jsonl").read_text("utf-8").split("\n")
        for place in sorted(rng.sample(range(500), EACH)):
            texts.append(lines[place])
            wanted |= {id_ for id_, _ in json.loads(hits[place])}
    corpus = (json.loads(line) for line in (folder / "c20k.jsonl").read_text("utf-8").split("\n") if line)
    return [row for row in corpus if row["id"] in wanted], texts


def search(jars: Path, passages: list[dict[str, str]], texts: list[str]) -> list[list[tuple[str, float]]]:
    """Lucene's ordered hits for each text, ids with scores."""
    lines = [f"passage {row['id']} {encoded(row['title'] + ' ' + row['text'])}" for row in passages]
    lines += [f"query {encoded(text)}" for text in texts]
    command = ["java", "-cp", f"{jars}/*", str(HERE / "Hits.java")]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True)
    found: list[list[tuple[str, float]]] = [[] for _ in texts]
    for line in done.stdout.splitlines():
        number, id_, score = line.split(" ")
        found[int(number)].append((id_, float(score)))
    return found


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def main() -> None:
    jars, folder = Path(sys.argv[1]), Path(sys.argv[2])
    passages, texts = cut(folder)
    hits = search(jars, passages, texts)
    write(HERE / "passages.jsonl", list(passages))
    write(HERE / "hits.jsonl", [{"query": text, "hits": found} for text, found in zip(texts, hits, strict=True)])
    print(f"{len(passages)} passages, {len(texts)} queries, {sum(map(len, hits))} hits")


if __name__ == "__main__":
    main()
