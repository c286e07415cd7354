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


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file whose exact content is known. `urls` are tried in this order; `path` is its place in a folder of the
    publisher's, where it is looked for by its name alone, too; `sha256` is hexadecimal."""

    path: str
    urls: tuple[str, ...]
    sha256: str


Source = Path | str | PublishedFile | Callable[[], Iterable[Any]]
"""Where the questions of a split are: a file on this machine, the URL of one (`https://…`, or
`hf://datasets/OWNER/NAME/FILE` for one on the Hugging Face hub), a published file with its checksum, or a function that
yields `Question`s or rows of any shape that `questions.rows` lists."""


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


_R1_SEARCHER = "https://raw.githubusercontent.com/RUCAIBox/R1-Searcher/631167cbb3c2464f805730e3e364a690f5b136d4/data"
_R1_SEARCHER_HUB = "hf://datasets/XXsongLALA/RAG-RL-Hotpotqa-with-2wiki"


def _released(path: str, sha256: str, *, on_hub: bool = False) -> PublishedFile:
    """A file of R1-Searcher's repository (`data/`), at the commit whose content was checked. The hub has the training
    sets only."""
    hub = (f"{_R1_SEARCHER_HUB}/{path.rpartition('/')[2]}",) if on_hub else ()
    return PublishedFile(path, (*hub, f"{_R1_SEARCHER}/{path}"), sha256)


R1_SEARCHER = "r1-searcher"
"""The name of the questions that R1-Searcher's authors released: two training sets, and four for evaluation."""

TRAINED = ("stage1", "stage2")
"""Its training sets."""

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
        R1_SEARCHER: NamedDataset(
            {
                "stage1": _released(
                    "training_set/stage_1.jsonl",
                    "17d9eee9de22a25152ca0445fc9d7da06dde1f74ef44fb997d173c45d26d29f7",
                    on_hub=True,
                ),
                "stage2": _released(
                    "training_set/stage_2.jsonl",
                    "25ef0a7f3b91d36e87b46f269f039b5307e89a87b12a6ee5102fb93619286219",
                    on_hub=True,
                ),
                "hotpotqa": _released(
                    "eval_set/hotpotqa_500.jsonl", "bf8a42f6e1abcaaaf050cf3c7ffa50231102dd1c021b77ab01eeac95fad04bea"
                ),
                "2wikimultihopqa": _released(
                    "eval_set/2wiki_500.jsonl", "0fb19dee8acbf146d60c699443b1164038727f9597f30f4894bab2da253b2f1a"
                ),
                "musique": _released(
                    "eval_set/musique_500.jsonl", "d1342802b9b9850e44a946031de4557722427783c92421178d729dd6e113b50d"
                ),
                "bamboogle": _released(
                    "eval_set/bamboogle.jsonl", "1c551e2f4c3387fd97a1cf711737258df5ffd4ea86996f1b2ba63a861cb7af29"
                ),
            }
        ),
    },
    NamedDataset,
)
"""R1-Searcher evaluates on its own samples of 500 rows of HotpotQA, 2WikiMultihopQA and MuSiQue (`eval_set/` in its
repository, `r1-searcher:hotpotqa` and so on here); the hub's files are the whole development sets. The report says
which file was read, and its hash.
"""
