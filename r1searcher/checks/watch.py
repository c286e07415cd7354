"""Whether the watch rules, including those of other packages, can be used."""

from r1searcher.checks.base import RL_STAGES, Check, StageInputs
from r1searcher.errors import InputError
from r1searcher.watch.rules import RULES


def _rules(inputs: StageInputs) -> None:
    """The watch rules can be imported."""
    for name, rule in RULES.items():
        if not callable(rule):
            raise InputError(f"the watch rule {name!r} is not a function, but {rule!r}: uninstall its package")


rules = Check(_rules, stages=RL_STAGES)
