"""The official scorer of a dataset, found by the dataset's name."""

import re
from functools import cache

from r1searcher.errors import InputError
from r1searcher.questions.datasets import DATASETS, NamedDataset
from r1searcher.rewards.official import SCORERS, OfficialScorer


@cache
def official_scorer(name: str) -> OfficialScorer | None:
    """The scorer of a dataset by its name, or by a name that begins with it ("hotpotqa_500"); None for others.

    Raises `InputError` for a dataset that names an unknown scorer.

    >>> str(official_scorer("musique_500"))
    'metrics/answer.py of StonyBrookNLP/musique (MuSiQue)'
    """
    for known, dataset in DATASETS.items():
        if re.match(rf"(?:{spelling_of(known, dataset)})(?![a-z0-9])", spelled(name)):
            return _scorer(known, dataset)
    return None


def spelled(name: str) -> str:
    """A name in the form that spellings match: in lower case, with underscores."""
    return name.lower().replace("-", "_")


def spelling_of(name: str, dataset: NamedDataset) -> str:
    """The regular expression for the beginning of names that mean this dataset."""
    return dataset.spelling or re.escape(spelled(name))


def _scorer(name: str, dataset: NamedDataset) -> OfficialScorer | None:
    if not isinstance(dataset.scorer, str):
        return dataset.scorer
    if dataset.scorer and dataset.scorer not in SCORERS:
        raise InputError(f"the dataset {name} names the scorer {dataset.scorer!r}: choose one of {', '.join(SCORERS)}")
    return SCORERS.get(dataset.scorer)
