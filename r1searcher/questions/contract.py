"""Contract of named datasets, for your own tests:

    check_dataset("rivers", RIVERS)

It raises `AssertionError` with the rule that was broken. Nothing is downloaded.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from r1searcher.common.contract import rule
from r1searcher.questions.datasets import NamedDataset, PublishedFile, Source
from r1searcher.questions.read import Questions, read_question_file, read_question_rows
from r1searcher.questions.scorers import spelled, spelling_of
from r1searcher.rewards.official import SCORERS, OfficialScorer


def check_dataset(name: str, dataset: NamedDataset) -> None:
    """Raises `AssertionError` for the first rule that the dataset breaks, and `InputError` for a split on this machine
    that cannot be read."""
    rule(re.fullmatch(r"[\w.-]+", name), f"the name {name!r} has letters, digits, dots, hyphens and underscores only")
    scorer = dataset.scorer
    known = isinstance(scorer, OfficialScorer) or scorer in ("", *SCORERS)
    rule(known, f"the scorer of {name} is an OfficialScorer or one of {', '.join(SCORERS)}")
    rule(re.fullmatch(spelling_of(name, dataset), spelled(name)), f"the spelling of {name} matches its name")
    for split, source in dataset.splits.items():
        _check_source(f"{name}:{split}", source)


def _check_source(split: str, source: Source) -> None:
    if isinstance(source, str):
        _check_url(split, source)
        return
    if isinstance(source, PublishedFile):
        rule(source.urls, f"the published file of {split} has at least one URL")
        for url in source.urls:
            _check_url(split, url)
        rule(re.fullmatch("[0-9a-f]{64}", source.sha256), f"the sha256 of {split} has 64 hexadecimal digits")
        return
    read = _read(source, split)
    rule(not read.refused, f"every row of {split} is a question: {next(iter(read.refused), '')}")
    ids = [question.id for question in read.questions]
    rule(len(set(ids)) == len(ids), f"the ids of {split} are unique")
    rule(_read(source, split).sha256 == read.sha256, f"{split} is the same every time")


def _check_url(split: str, url: str) -> None:
    parts = urlsplit(url)
    rule(parts.scheme in ("https", "hf"), f"the URL of {split} begins with https:// or hf://")
    whole = parts.netloc and (parts.scheme == "https" or parts.path.count("/") >= 3)
    rule(whole, f"the URL of {split} names a file: hf://datasets/OWNER/NAME/FILE for the hub")


def _read(source: Source, split: str) -> Questions:
    if isinstance(source, Path):
        return read_question_file(source, strict=False)
    assert callable(source)
    return read_question_rows(source(), split)
