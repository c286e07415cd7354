"""Rewards of `released-*` and `search-r1*` compared with the projects' own functions, on mutated trajectories.

    python benchmarks/released_rewards.py R1-SEARCHER SEARCH-R1 --trajectories FILE.jsonl ... [--cases 50000]

R1-SEARCHER and SEARCH-R1 are checkouts of RUCAIBox/R1-Searcher and PeterGriffinJin/Search-R1. Their functions run
unmodified. FILE.jsonl are released trajectories (R1-Searcher's `eval_results`). Half of the cases mutate one of them,
half are composed of tags and words. Exits with 1 if any reward differs. `--write FILE.jsonl.gz` writes the cases with
the projects' rewards, for `tests/data/rewards`.
"""

import argparse
import contextlib
import gzip
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from published import definitions

from r1searcher.evaluation.predictions import from_text
from r1searcher.rewards.recipes import RewardedStage, recipe_parts, reward_function

QUERY, END_QUERY = "<|begin_of_query|>", "<|end_of_query|>"
DOCUMENTS, END_DOCUMENTS = "<|begin_of_documents|>", "<|end_of_documents|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>", QUERY, END_QUERY, DOCUMENTS, END_DOCUMENTS)
END_TOKENS = ("<|endoftext|>", "<|eot_id|>")
PROMPT_ENDS = (
    "\nAssistant: <think>",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n<think>",
)
BLOCKS = (
    f"\n\n{DOCUMENTS}\n(1)Title: Oslo Text: Oslo is the capital.\n(2)Title: B Text: An assistant professor.\n"
    f"{END_DOCUMENTS}\n\n",
    f"\n\n{DOCUMENTS}\n(1)Title: Norge Text: \u6319\u5a01 <answer> Oslo </answer>\n{END_DOCUMENTS}\n\n",
    f"\n\n{DOCUMENTS}\nNo passage matched.\n{END_DOCUMENTS}\n\n",
    f"{DOCUMENTS} none {END_DOCUMENTS}",
)
WORDS = (
    *(
        "assistant",
        "Assistant",
        "ASSISTANT",
        "begin_of_query",
        "begin_of_documents",
        "\u6319\u5a01",
        "\u3042",
        "\u9fff",
    ),
    *("\ua000", "\n", "\n\n", " ", "\u00a0", "(1)", "\n(1)", "Oslo", "the", "True", "False", "yes", "noanswer"),
    *("<search>", "</search>", "<information>", "</information>", *TAGS, *END_TOKENS, *PROMPT_ENDS, *BLOCKS),
)
GOLD_ANSWERS = (
    "Oslo",
    "yes",
    "no",
    "True",
    " True ",
    "False",
    "noanswer",
    "the",
    "",
    "U.S.",
    "New_York",
    "a b a b",
    "\u00c9a",
)
ANSWERS = (
    *GOLD_ANSWERS,
    *(
        " Yes ",
        "Oslo, Norway",
        "the Oslo.",
        "US",
        "u s",
        "new york",
        "one two three four five six seven eight nine ten",
    ),
    *(
        "1 2 3 4 5 6 7 8 9 10 11",
        "   ",
        "b a",
        f"{QUERY} Oslo",
        "begin_of_documents",
        "Os lo",
        "`Oslo`",
        "\u2018Oslo\u2019",
    ),
)


@dataclass(frozen=True)
class Case:
    """Everything that followed a prompt, and the gold answers. The released servers support only one."""

    text: str
    gold_answers: tuple[str, ...]


def mutated(draw: random.Random, text: str, gold: str) -> Case:
    """A trajectory with one to four changes."""
    for _ in range(draw.randint(1, 4)):
        text = draw.choice(CHANGES)(draw, text, gold)
    if draw.random() < 0.15:
        gold = draw.choice(GOLD_ANSWERS)
    gold_answers = (gold, draw.choice(GOLD_ANSWERS)) if draw.random() < 0.05 else (gold,)
    return Case(text, gold_answers)


def _insert(draw: random.Random, text: str, gold: str) -> str:
    place = draw.choice([0, len(text), draw.randint(0, len(text)), _at_tag(draw, text)])
    return text[:place] + draw.choice(WORDS) + text[place:]


def _at_tag(draw: random.Random, text: str) -> int:
    """A position right before or after a tag."""
    tag = draw.choice(TAGS)
    places = [place for place in range(len(text)) if text.startswith(tag, place)]
    return draw.choice(places) + draw.choice([0, len(tag)]) if places else len(text)


def _remove_tag(draw: random.Random, text: str, gold: str) -> str:
    return text.replace(draw.choice(TAGS), draw.choice(["", *TAGS]), draw.choice([1, -1]))


def _cut(draw: random.Random, text: str, gold: str) -> str:
    place = draw.choice([draw.randint(0, len(text)), _at_tag(draw, text)])
    return draw.choice([text[:place], text[place:]]) if draw.random() < 0.7 else text


def _block_edges(draw: random.Random, text: str, gold: str) -> str:
    old, new = draw.choice(
        [
            (f"{DOCUMENTS}\n", DOCUMENTS),
            (f"{DOCUMENTS}\n(1)", f"{DOCUMENTS}\n(2)"),
            (f"{END_DOCUMENTS}\n\n", f"{END_DOCUMENTS}\n"),
            (f"{END_DOCUMENTS}\n\n", END_DOCUMENTS),
        ]
    )
    return text.replace(old, new, draw.choice([1, -1]))


def _other_answer(draw: random.Random, text: str, gold: str) -> str:
    before, opened, rest = text.rpartition("<answer>")
    space = draw.choice(["", " ", "\n"])
    new = draw.choice([gold, gold.upper(), f"The {gold}.", gold[: len(gold) // 2], gold.replace(" ", "-")])
    new = draw.choice([new, draw.choice(ANSWERS)])
    tail = rest.partition("</answer>")
    return f"{before}{opened}{space}{new}{space}{tail[1]}{tail[2]}" if opened else f"{text}<answer>{new}</answer>"


def _repeat(draw: random.Random, text: str, gold: str) -> str:
    start = _at_tag(draw, text)
    piece = text[start : start + draw.randint(1, 200)]
    return text[:start] + piece + text[start:]


def _ending(draw: random.Random, text: str, gold: str) -> str:
    end = draw.choice(END_TOKENS)
    return text + draw.choice([end, end * 3, f"{end}\n", f"\n{end}", "\n", f"</answer>{end}", f"<answer> {gold}{end}"])


CHANGES: tuple[Callable[[random.Random, str, str], str], ...] = (
    _insert,
    _insert,
    _remove_tag,
    _cut,
    _block_edges,
    _other_answer,
    _other_answer,
    _repeat,
    _ending,
)


def composed(draw: random.Random) -> Case:
    """A short text of tags and words: in the right order, possibly changed; or of pieces in any order."""
    gold = draw.choice(GOLD_ANSWERS)
    if draw.random() < 0.3:
        return Case("".join(draw.choice(WORDS + ANSWERS) for _ in range(draw.randint(0, 12))), (gold,))
    turns = "".join(f" I look. {QUERY} Oslo {END_QUERY}{draw.choice(BLOCKS)}" for _ in range(draw.randint(0, 3)))
    text = f"{turns} So. </think>\n\n<answer> {draw.choice([gold, draw.choice(ANSWERS)])} </answer>"
    return mutated(draw, text, gold) if draw.random() < 0.9 else Case(text, (gold,))


def cases(files: Sequence[Path], count: int, seed: int) -> Iterator[Case]:
    """Every released trajectory unchanged, then alternating mutated and composed ones. Only the former use `files`."""
    rows = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    released = [(row["gen_text_store"], str(row["answer"])) for row in rows][:count]
    yield from (Case(text, (gold,)) for text, gold in released)
    draw = random.Random(seed)
    for number in range(count - len(released)):
        yield mutated(draw, *draw.choice(released)) if number % 2 and released else composed(draw)


Scorer = Callable[[Case], float | None]


def released_server(file: Path, before: str, after: str, end_token: str) -> Scorer:
    """A server's reward for a case; None if the case has several gold answers: servers support one."""
    space = definitions(file, logger=SimpleNamespace(info=lambda text: None))
    server: Any = object.__new__(space["MathRuleProxy"])
    server.tokenizer = SimpleNamespace(pad_token=end_token, eos_token=end_token)
    server.log_file, server.cnt = None, 0

    def reward(case: Case) -> float | None:
        if len(case.gold_answers) > 1:
            return None
        server.eval_data_dict = {"question": case.gold_answers[0]}
        with contextlib.redirect_stdout(io.StringIO()):
            [earned] = server.get_reward([f"{before}question{after}{case.text}"])
        return float(earned[0] if isinstance(earned, list) else earned)

    return reward


def search_r1(file: Path, **weights: float) -> Scorer:
    """Search-R1's reward for a case in its own tags, after a prompt with one example of an answer."""
    score = definitions(file)["compute_score_em"]

    def reward(case: Case) -> float:
        text = case.text
        for ours, theirs in (
            (QUERY, "</think><search>"),
            (END_QUERY, "</search>"),
            (DOCUMENTS, "<information>"),
            (END_DOCUMENTS, "</information><think>"),
        ):
            text = text.replace(ours, theirs)
        prompt = "<|im_start|>user\nFor example, <answer> Beijing </answer>.<|im_end|>\n<|im_start|>assistant\n<think>"
        with contextlib.redirect_stdout(io.StringIO()):
            return float(score(prompt + text, {"target": list(case.gold_answers)}, **weights))

    return reward


def published_scorers(r1_searcher: Path, search_r1_checkout: Path) -> dict[str, Scorer]:
    """The projects' functions by the recipe and stage that must equal them."""
    llama = ("<|start_header_id|>user<|end_header_id|>\n\n", PROMPT_ENDS[1], "<|eot_id|>")
    train, score = r1_searcher / "train", search_r1_checkout / "verl" / "utils" / "reward_score"
    return {
        "released-llama/stage1": released_server(train / "reward_server_llama_stage1.py", *llama),
        "released-llama/stage2": released_server(train / "reward_server_llama_stage2.py", *llama),
        "released-qwen/stage2": released_server(
            train / "reward_server_qwen_zero.py", "\n\nUser:", PROMPT_ENDS[0], "<|endoftext|>"
        ),
        "search-r1/stage2": search_r1(score / "qa_em.py"),
        "search-r1-format/stage2": search_r1(
            score / "qa_em_format.py", structure_format_score=0.2, final_format_score=0.1, retrieval_score=0
        ),
    }


def our_scorers(names: Sequence[str]) -> dict[str, Scorer]:
    def scorer(recipe: str, stage: RewardedStage) -> Scorer:
        reward = reward_function(recipe_parts(recipe, stage))
        return lambda case: reward(from_text("question", case.gold_answers, case.text)).total

    return {name: scorer(*name.split("/")) for name in names}  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("r1_searcher", type=Path)
    parser.add_argument("search_r1", type=Path)
    parser.add_argument("--trajectories", type=Path, nargs="*", default=[])
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", type=Path, help="Also write the cases with the projects' rewards.")
    arguments = parser.parse_args()
    theirs = published_scorers(arguments.r1_searcher, arguments.search_r1)
    ours = our_scorers(list(theirs))
    compared, different = Counter[str](), Counter[str]()
    written = []
    for case in cases(arguments.trajectories, arguments.cases, arguments.seed):
        expected = {name: scorer(case) for name, scorer in theirs.items()}
        written.append({"text": case.text, "gold_answers": case.gold_answers, "rewards": expected})
        for name, value in expected.items():
            if value is None:
                continue
            compared[name] += 1
            found = ours[name](case)
            if found is None or abs(found - value) > 1e-9:
                different[name] += 1
                if different[name] <= 3:
                    print(f"{name}: {found} instead of {value} for {case}", file=sys.stderr)
    for name in theirs:
        print(f"{name}: {compared[name]:,} rewards compared, {different[name]} differ")
    if arguments.write:
        write(arguments.write, written)
    sys.exit(bool(different))


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = sorted(json.dumps(row) for row in rows)  # sorted rows compress better
    file.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode(), mtime=0))


if __name__ == "__main__":
    main()
