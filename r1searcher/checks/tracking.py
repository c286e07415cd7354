"""Whether the trackers of the settings can be used."""

from r1searcher.checks.base import Check, StageInputs
from r1searcher.errors import InputError


def _tracking(inputs: StageInputs) -> None:
    """The packages and keys of the trackers in `[tracking]` are there."""
    problems = []
    for name, tracker in inputs.settings.tracking.trackers.items():
        try:
            tracker.check(name)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n  ".join(problems))


tracking = Check(_tracking)
