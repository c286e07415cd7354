"""Whether the watch rules, including those of other packages, can be used."""

from r1searcher.checks.base import RL_STAGES, Check, StageInputs
from r1searcher.watch.rules import RULES


def _rules(inputs: StageInputs) -> None:
    """The watch rules can be imported."""
    tuple(RULES.values())  # raises `InputError` for one that cannot be imported or called


rules = Check(_rules, stages=RL_STAGES)
