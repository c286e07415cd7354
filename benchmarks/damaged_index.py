"""Damages an index while `r1s serve` has it open, and before it is opened; counts right, wrong and late responses.

    python benchmarks/damaged_index.py --positions 200

Each of the positions in each file of an index of 2,000 passages is damaged in place (a bit flipped, 64 bytes zeroed,
the rest cut off, in turn; --all-kinds: each position in all three ways) and restored. After each damage five queries
are sent, and two more clients send queries continuously. Right: the hits and scores of the intact index. Ends with
SIGTERM.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from r1searcher.errors import R1Error
from r1searcher.retrieval.engines.bm25 import EmbeddedIndex
from tests.retrieval.damage import KINDS, LONGEST_ANSWER, QUERIES, Damage, ask, attack, damages, make_index, outcome
from tests.retrieval.serving import started

Tally = Counter[tuple[str, str, str]]


def before_opening(index: Path, cases: list[Damage]) -> Tally:
    """Every file is read when it is opened, as in `r1s serve`."""
    intact = {query: EmbeddedIndex(index).search_one(query, 3) for query in QUERIES}
    tally: Tally = Counter()
    for case in cases:
        case.do()
        try:
            opened = EmbeddedIndex(index, thorough=True)
            right = all(opened.search_one(query, 3) == intact[query] for query in QUERIES)
            what = "right" if right else "WRONG"
        except R1Error:
            what = "refused"
        case.undo()
        tally[case.file.suffix or case.file.name, case.kind, what] += 1
    return tally


def while_served(index: Path, cases: list[Damage]) -> tuple[Tally, Counter[str], float]:
    """The tally, the outcomes of two clients that query continuously, and the seconds that SIGTERM took."""
    tally: Tally = Counter()
    meanwhile: Counter[str] = Counter()
    over = threading.Event()
    with started(str(index), "--workers", "2") as (process, address):
        intact = {query: ask(address, query) for query in QUERIES}

        def client() -> None:
            while not over.is_set():
                for query in QUERIES:
                    try:
                        answer = ask(address, query)
                    except TimeoutError:
                        answer = "LATE"
                    meanwhile[outcome(answer, intact[query])] += 1
                    time.sleep(0.005)

        clients = [threading.Thread(target=client) for _ in range(2)]
        for thread in clients:
            thread.start()
        try:
            for number, case in enumerate(cases):
                attack(address, intact, [case], tally)
                if number % 100 == 0:
                    print(f"{number} of {len(cases)}", file=sys.stderr, flush=True)
        finally:
            over.set()
            for thread in clients:
                thread.join()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        return tally, meanwhile, time.monotonic() - began


def show(title: str, tally: Tally) -> None:
    print(f"\n{title}\n\n| file | damage | outcome | count |\n|---|---|---|---|")
    for row, count in sorted(tally.items()):
        print("|", *(f"{cell} |" for cell in row), f"{count} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=200, help="Per file.")
    parser.add_argument("--all-kinds", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="r1s-damage-"))
    index = folder / "index"
    make_index(index)
    cases = list(damages(index, options.positions, options.seed))
    every = [replace(case, kind=kind) for case in cases for kind in KINDS]
    show(f"Before it is opened, {len(every):,} cases", before_opening(index, every))
    if options.all_kinds:
        cases = every
    tally, meanwhile, seconds = while_served(index, cases)
    show(f"While it is served, {len(cases):,} cases, {len(QUERIES)} queries each", tally)
    print(f"\nOther clients: {json.dumps(meanwhile)}; none later than {LONGEST_ANSWER:.0f} s.")
    print(f"SIGTERM: {seconds:.1f} s.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
