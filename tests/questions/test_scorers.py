"""Which dataset's scorer a name means."""

import pytest

from r1searcher.questions.datasets import DATASETS, R1_SEARCHER
from r1searcher.questions.scorers import official_scorer
from r1searcher.rewards.official import SCORERS


@pytest.mark.parametrize(
    ("name", "scorer"),
    [
        ("hotpotqa", "hotpotqa"),
        ("hotpotqa_500", "hotpotqa"),
        ("HotpotQA-dev", "hotpotqa"),
        ("hotpot_qa", "hotpotqa"),
        ("2wiki_500", "2wikimultihopqa"),
        ("2WikiMultihopQA", "2wikimultihopqa"),
        ("musique_ans_v1.0_dev", "musique"),
        ("trivia_qa", "triviaqa"),
        ("nq", "nq"),
        ("nq_open", "nq"),
        ("natural-questions", "nq"),
        ("popqa", "popqa"),
        ("bamboogle_qwen", "bamboogle"),
    ],
)
def test_a_dataset_is_known_by_the_beginning_of_its_name(name: str, scorer: str) -> None:
    assert official_scorer(name) is SCORERS[scorer]


@pytest.mark.parametrize("name", ["", "predictions", "nqx", "hotpots", "my_hotpotqa", "held_out"])
def test_other_names_have_no_official_scorer(name: str) -> None:
    assert official_scorer(name) is None


def test_every_dataset_of_the_package_has_a_scorer_that_is_described() -> None:
    for name in set(DATASETS.builtin) - {R1_SEARCHER}:  # which has questions of several datasets
        scorer = official_scorer(name)
        assert scorer is not None
        assert scorer.about in str(scorer)
