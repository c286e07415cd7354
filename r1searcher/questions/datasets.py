"""The named datasets: the sources of their splits, and their official scorers. Importing this module is cheap.

Another package adds one with an entry point of the group `r1searcher.datasets`:

    RIVERS = NamedDataset({"train": Path("train.jsonl"), "test": "https://example.org/rivers/test.jsonl"})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1searcher.common.registry import Registry

if TYPE_CHECKING:
    from r1searcher.rewards.official import OfficialScorer

FLASHRAG = "hf://datasets/RUC-NLPIR/FlashRAG_datasets"

Source = Path | str | Callable[[], Iterable[Any]]
"""Where the questions of a split are: a file on this machine, the URL of one (`https://…`, or
`hf://datasets/OWNER/NAME/FILE` for one on the Hugging Face hub), or a function that yields `Question`s or rows of any
shape that `questions.rows` lists."""


@dataclass(frozen=True, slots=True)
class NamedDataset:
    """A dataset. `splits` are its sources by name; `train` is the one for training.

    `evaluated` is the split for evaluation: the last one if not given. `files` are names of files that replace
    that split in a folder of datasets (`--data-dir`, `data.folder`). `scorer` is the dataset's own scorer, or the name
    of one in `rewards.official.SCORERS`; none if it is empty. `spelling` is a regular expression for the beginning of
    names that mean this dataset, such as `2wiki_500`, in lower case and with underscores for hyphens; the name itself
    if it is empty.
    """

    splits: Mapping[str, Source]
    evaluated: str = ""
    files: tuple[str, ...] = ()
    scorer: OfficialScorer | str = ""
    spelling: str = ""

    def __post_init__(self) -> None:
        if not self.splits or (self.evaluated and self.evaluated not in self.splits):
            raise ValueError(f"a dataset has at least one split, and evaluated = {self.evaluated!r} is one of them")

    @property
    def evaluated_split(self) -> str:
        return self.evaluated or list(self.splits)[-1]


def _flashrag(name: str, splits: str, spelling: str, *, sample: str = "") -> NamedDataset:
    """A dataset of FlashRAG's collection on the hub. `sample` is R1-Searcher's file of 500 questions, if it has one."""
    sources: dict[str, Source] = {split: f"{FLASHRAG}/{name}/{split}.jsonl" for split in splits.split()}
    return NamedDataset(sources, files=(f"{name}.jsonl", *filter(None, [sample])), scorer=name, spelling=spelling)


DATASETS: Registry[NamedDataset] = Registry(
    "dataset",
    "r1searcher.datasets",
    {
        "bamboogle": _flashrag("bamboogle", "test", "bamboogle"),
        "hotpotqa": _flashrag("hotpotqa", "train dev", "hotpot(_?qa)?", sample="hotpotqa_500.jsonl"),
        "2wikimultihopqa": _flashrag(
            "2wikimultihopqa", "train dev", "2wiki(_?multi_?hop(_?qa)?)?", sample="2wiki_500.jsonl"
        ),
        "musique": _flashrag("musique", "train dev", "musique", sample="musique_500.jsonl"),
        "nq": _flashrag("nq", "train dev test", "nq|natural_?questions"),
        "triviaqa": _flashrag("triviaqa", "train dev test", "trivia_?qa"),
        "popqa": _flashrag("popqa", "test", "pop_?qa"),
    },
    NamedDataset,
)
"""R1-Searcher evaluates on its own samples of 500 rows of HotpotQA, 2WikiMultihopQA and MuSiQue (`eval_set/` in its
repository); the hub's files are the whole development sets. The report says which file was read, and its hash.
"""
