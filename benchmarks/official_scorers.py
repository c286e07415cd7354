"""Official metrics compared with the datasets' own programs, on fuzzed pairs of answer and gold answers.

    python benchmarks/official_scorers.py FOLDER [--pairs 100000] [--trajectories FILE.jsonl ...]

FOLDER contains checkouts named hotpot (hotpotqa), 2wikimultihop (Alab-NII), triviaqa (mandarjoshi90), musique
(StonyBrookNLP), DPR (facebookresearch), adaptive-retrieval (AlexTMallen) and FlashRAG (RUC-NLPIR). Their functions run
unmodified. Answers and gold answers of FILE.jsonl (R1-Searcher's `eval_results`) are mixed with the generated ones.
Exits with 1 if any metric differs. `--write FILE.jsonl` writes the pairs with the programs' metrics, for
`tests/data/official`.
"""

import argparse
import ast
import importlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from published import definitions, parsed, run

from r1searcher.rewards.official import ACCURACY, EM, F1, SCORERS

Pair = tuple[str, tuple[str, ...]]
Program = Callable[[str, Sequence[str]], dict[str, float]]

WORDS = (
    *("the", "a", "an", "The", "A.", "Oslo", "oslo", "OSLO,", "New", "York", "new_york", "U.S.", "US", "u.s", "x_y"),
    *("yes", "Yes", "no", "No.", "noanswer", "True", "False", " True ", "\u2018an\u2019", "\u00b4a\u00b4", "`the`"),
    *("\u00c9", "\u00e9", "\u0130stanbul", "stra\u00dfe", "\u2013", "the\u2013end", "\u6319\u5a01", "1,000", "$5", ""),
    *(
        " ",
        "\t",
        "\n",
        "\u00a0",
        "\u2028",
        "\x1c",
        "-",
        "--",
        "'s",
        "Norway's",
        "(",
        ")",
        "a\u0301",
        "\x00the",
        "the\x00",
    ),
)


def text(draw: random.Random, longest: int = 6) -> str:
    return draw.choice(["", " ", " "]).join(draw.choice(WORDS) for _ in range(draw.randint(0, longest)))


def changed(draw: random.Random, answer: str) -> str:
    """A variant of the given answer: other case or punctuation, words added, removed or moved."""
    words = answer.split()
    draw.shuffle(words)
    return draw.choice(
        [
            answer,
            f" {answer} ",
            f"The {answer}.",
            answer.upper(),
            answer.lower(),
            answer.capitalize(),
            answer.replace(" ", "-"),
            answer.replace(" ", "  ").replace("-", " "),
            " ".join(words),
            " ".join(words[:-1]),
            f"{answer} {draw.choice(WORDS)}",
            f"{draw.choice(WORDS)} {answer}",
        ]
    )


def pairs(released: Sequence[Pair], count: int, seed: int) -> Iterator[Pair]:
    """The released pairs unchanged, then answers derived from gold answers or generated (one to four gold answers)."""
    yield from released[:count]
    draw = random.Random(seed)
    for _ in range(count - len(released)):
        known = (
            [gold for _, gold_answers in draw.sample(released, 2) for gold in gold_answers] if len(released) > 1 else []
        )
        gold_answers = tuple(draw.choice([text(draw), *known]) for _ in range(draw.choice([1, 1, 2, 4])))
        yield changed(draw, draw.choice(gold_answers)) if draw.random() < 0.7 else text(draw), gold_answers


def programs(folder: Path) -> dict[str, Program]:
    """The datasets' own metrics for one answer and its gold answers, by the names of `SCORERS`."""
    hotpot = definitions(folder / "hotpot" / "hotpot_evaluate_v1.py")
    wiki = definitions(folder / "2wikimultihop" / "2wikimultihop_evaluate_v1.1.py")
    trivia = definitions(folder / "triviaqa" / "evaluation" / "triviaqa_evaluation.py")
    musique = definitions(folder / "musique" / "metrics" / "answer.py", Metric=object)
    dpr = definitions(
        folder / "DPR" / "dpr" / "data" / "qa_validation.py",
        ["exact_match_score", "_normalize_answer"],
        re=importlib.import_module("regex"),  # what it imports as `re`
    )
    flash_names = definitions(folder / "FlashRAG" / "flashrag" / "evaluator" / "utils.py")
    flash = definitions(
        folder / "FlashRAG" / "flashrag" / "evaluator" / "metrics.py",
        ["BaseMetric", "F1_Score", "ExactMatch"],
        normalize_answer=flash_names["normalize_answer"],
    )
    config = {"dataset_name": "bamboogle"}
    flash_f1, flash_em = flash["F1_Score"](config), flash["ExactMatch"](config)

    def counted(update: Callable[..., object], answer: str, gold_answers: object) -> dict[str, float]:
        sums = {"em": 0.0, "f1": 0.0, "prec": 0.0, "recall": 0.0}
        update(sums, answer, gold_answers)
        return {EM: sums["em"], F1: float(sums["f1"])}

    def of_musique(answer: str, gold_answers: Sequence[str]) -> dict[str, float]:
        metric = musique["AnswerMetric"]()
        metric(answer, list(gold_answers))
        em, f1 = metric.get_metric()
        return {EM: float(em), F1: float(f1)}

    def of_triviaqa(answer: str, gold_answers: Sequence[str]) -> dict[str, float]:
        aliases = [trivia["normalize_answer"](gold) for gold in gold_answers]
        found = trivia["evaluate_triviaqa"]({"q": {"NormalizedAliases": aliases}}, {"q": answer}, mute=True)
        return {EM: found["exact_match"] / 100, F1: found["f1"] / 100}

    return {
        "hotpotqa": lambda answer, gold_answers: counted(hotpot["update_answer"], answer, gold_answers[0]),
        "2wikimultihopqa": lambda answer, gold_answers: counted(wiki["update_answer"], answer, gold_answers),
        "triviaqa": of_triviaqa,
        "musique": of_musique,
        "nq": lambda answer, gold_answers: {
            EM: float(max(dpr["exact_match_score"](answer, gold) for gold in gold_answers))
        },
        "popqa": popqa(folder / "adaptive-retrieval" / "run_model.py"),
        "bamboogle": lambda answer, gold_answers: {
            EM: flash_em.calculate_em(answer, list(gold_answers)),
            F1: float(flash_f1.token_level_scores(answer, list(gold_answers))["f1"]),
        },
    }


def popqa(file: Path) -> Program:
    """PopQA's loop over possible answers, which is in the middle of its program."""
    loops = [
        node
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Name) and node.iter.id == "possible_answers"
    ]
    if len(loops) != 1:
        raise SystemExit(f"{file} does not have one loop over possible_answers: is it the right checkout?")

    class Arguments:
        eval_method = "vanilla"

    def accuracy(answer: str, gold_answers: Sequence[str]) -> dict[str, float]:
        space = {
            "possible_answers": gold_answers,
            "pred": answer,
            "response": "",
            "args": Arguments,
            "is_correct": False,
        }
        run(loops[0], space)
        return {ACCURACY: float(bool(space["is_correct"]))}

    return accuracy


def released_pairs(files: Sequence[Path]) -> list[Pair]:
    rows = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    return [(str(row["pred_ans"]), (str(row["answer"]),)) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trajectories", type=Path, nargs="*", default=[])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", type=Path, help="Also write the pairs with the programs' metrics.")
    arguments = parser.parse_args()
    theirs = programs(arguments.folder)
    different: Counter[str] = Counter()
    written = []
    for answer, gold_answers in pairs(released_pairs(arguments.trajectories), arguments.pairs, arguments.seed):
        expected = {}
        for name, program in theirs.items():
            known = gold_answers[:1] if name == "hotpotqa" else gold_answers  # HotpotQA's program supports one
            expected[name] = program(answer, known)
            found = SCORERS[name](answer, known)
            if found.keys() != expected[name].keys() or any(
                abs(found[m] - v) > 1e-9 for m, v in expected[name].items()
            ):
                different[name] += 1
                if different[name] <= 3:
                    print(
                        f"{name}: {found} instead of {expected[name]} for {answer!r}, {gold_answers}", file=sys.stderr
                    )
        written.append({"answer": answer, "gold_answers": gold_answers, "metrics": expected})
    for name in theirs:
        print(f"{name}: {len(written):,} pairs compared, {different[name]} differ")
    if arguments.write:
        arguments.write.write_text("".join(json.dumps(row) + "\n" for row in written))
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
