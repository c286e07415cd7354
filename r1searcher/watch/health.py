"""Rules on how training goes. Each returns a `Notice` with the likely causes: what a person should look at.

They compare the mean of the last `WINDOW` steps with the best or lowest mean of as many steps before, and are silent in
the first steps, and where a metric is not reported.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median

from r1searcher.config.settings import Settings
from r1searcher.watch.rules import Notice, Rows

WINDOW = 3
"""Steps whose mean is judged."""

_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def _means(rows: Rows, names: Sequence[str]) -> list[float]:
    """The mean of the sum of `names` over each `WINDOW` consecutive steps that report finite values of all of them."""
    sums = [sum(row[name] for name in names) for row in rows if all(_is_finite(row, name) for name in names)]
    return [fmean(sums[end - WINDOW : end]) for end in range(WINDOW, len(sums) + 1)]


def _is_finite(row: Mapping[str, float], name: str) -> bool:
    return math.isfinite(row.get(name, math.nan))


def _noise(rows: Rows, name: str) -> float:
    """The standard error of a mean of `WINDOW` steps, from the median change between steps, so a fall hardly counts."""
    values = [row[name] for row in rows if _is_finite(row, name)]
    changes = [abs(after - before) for before, after in pairwise(values)]
    return _SIGMA * median(changes) / math.sqrt(2 * WINDOW) if changes else 0.0


def _fall(rows: Rows, name: str, least: float, drop: float) -> str | None:
    """What to say if the mean of `name` is `drop` below its best, which was at least `least`, and that is no noise."""
    means = _means(rows, [name])
    if not means or max(means) < least or max(means) - means[-1] < max(drop, 5 * _noise(rows[:-WINDOW], name)):
        return None
    return f"{name} fell from {max(means):.2f} to {means[-1]:.2f} (means of {WINDOW} steps)"


def _above(rows: Rows, names: Sequence[str], limit: float) -> str | None:
    """What to say if the mean of the sum of `names` is above `limit`."""
    means = _means(rows, names)
    if not means or means[-1] <= limit:
        return None
    return f"{' + '.join(names)} is {means[-1]:.2f} (mean of {WINDOW} steps)"


def _notice(said: str | None, remedy: str) -> Notice | None:
    return Notice(f"{said}: {remedy}") if said else None


def reward_falling(rows: Rows, settings: Settings) -> Notice | None:
    """Whether the reward fell by .4 from its best. Remedy: a lower `rl.learning_rate`, an earlier checkpoint."""
    said = _fall(rows, "reward", float("-inf"), 0.4)
    return _notice(said, "lower rl.learning_rate, and continue from an earlier checkpoint")


def searches_falling(rows: Rows, settings: Settings) -> Notice | None:
    """Whether fewer episodes search than before, by .4. Remedy: a reward that pays for searching, or a stop here."""
    said = _fall(rows, "retrieval", 0.4, 0.4)
    return _notice(said, "the model stops searching; stop here, or let the reward pay for a search")


def answers_falling(rows: Rows, settings: Settings) -> Notice | None:
    """Whether fewer episodes end with an answer than before, by .4. Remedy: a reward under which no answer is worse."""
    said = _fall(rows, "stop/answered", 0.4, 0.4)
    return _notice(said, "answers are avoided; does the reward pay more without one? `r1s check` tells")


def documents_falling(rows: Rows, settings: Settings) -> Notice | None:
    """Whether what is found has the answer less often than before, by .5. Remedy: look at the retriever."""
    said = _fall(rows, "answer_in_documents", 0.5, 0.5)
    return _notice(said, "look at the queries in trajectories/, and at the retriever with `r1s search`")


def never_searches(rows: Rows, settings: Settings) -> Notice | None:
    """Whether (almost) no episode searches. Remedy: an SFT with traces, since stage 1 rewards only what happens."""
    means = _means(rows, ["retrieval"])
    if not means or means[-1] > 0.02:
        return None
    return Notice(
        f"{means[-1]:.1%} of the episodes of {WINDOW} steps searched: a reward for searching is never earned; start "
        "with `r1s sft`, or a prompt that explains the tags"
    )


def nothing_to_learn(rows: Rows, settings: Settings) -> Notice | None:
    """Whether all samples of each question earn the same. Remedy: harder or easier questions, more samples, a stop."""
    means = _means(rows, ["group_reward_std"])
    if not means or means[-1] > 1e-6:
        return None
    return Notice(
        f"no question of {WINDOW} steps had samples with different rewards: nothing can be learned; end the stage, or "
        "choose other questions with `r1s data select`"
    )


def episodes_unfinished(rows: Rows, settings: Settings) -> Notice | None:
    """Whether more than half of the episodes are cut. Remedy: larger `episode.max_new_tokens`, `max_context`."""
    said = _above(rows, ["stop/turn_truncated", "stop/context_full"], 0.5)
    return _notice(said, "raise episode.max_new_tokens or episode.max_context")


def search_limit(rows: Rows, settings: Settings) -> Notice | None:
    """Whether more than half of the episodes end at the search limit. Remedy: a larger `episode.max_searches`."""
    said = _above(rows, ["stop/search_limit"], 0.5)
    return _notice(said, "raise episode.max_searches, or let the reward pay for an answer")


def malformed_turns(rows: Rows, settings: Settings) -> Notice | None:
    """Whether more than 30 % of the episodes end with a malformed query or forged documents. Remedy: an SFT."""
    said = _above(rows, ["stop/malformed_query", "stop/forged_documents"], 0.3)
    return _notice(said, "look at trajectories/; an SFT with traces teaches the tags")


def unreadable_text(rows: Rows, settings: Settings) -> Notice | None:
    """Whether more than 20 % of the texts are unreadable or in a foreign script. Remedy: KL, a lower learning rate."""
    said = _above(rows, ["format/garbled_text", "format/stuck_text", "format/foreign_script"], 0.2)
    return _notice(said, "lower rl.learning_rate or raise rl.kl_coef, from an earlier checkpoint")


def length_growing(rows: Rows, settings: Settings) -> Notice | None:
    """Whether episodes are four times as long as they were. Remedy: a penalty for length, or a limit."""
    means = _means(rows, ["new_tokens"])
    if not means or means[-1] < 4 * min(means) or means[-1] < 100:
        return None
    return Notice(
        f"new_tokens grew from {min(means):.0f} to {means[-1]:.0f} (means of {WINDOW} steps): look at trajectories/, "
        "and limit episode.max_new_tokens"
    )


def not_finite(rows: Rows, settings: Settings) -> Notice | None:
    """Whether loss, reward or the gradients' norm is not a number. Remedy: an earlier checkpoint, a lower rate."""
    names = [
        name for name in ("policy_loss", "reward", "actor_grad_norm") if not math.isfinite(rows[-1].get(name, 0.0))
    ]
    if not names:
        return None
    return Notice(
        f"{', '.join(names)} is not a number: continue from an earlier checkpoint with a lower rl.learning_rate"
    )


def gradient_jump(rows: Rows, settings: Settings) -> Notice | None:
    """Whether the norm of the gradients is ten times its median. Remedy: a lower `rl.learning_rate`."""
    norms = [row["actor_grad_norm"] for row in rows if 0 < row.get("actor_grad_norm", 0) < math.inf]
    if len(norms) <= WINDOW or norms[-1] != rows[-1].get("actor_grad_norm") or norms[-1] < 10 * median(norms[:-1]):
        return None
    return Notice(
        f"actor_grad_norm is {norms[-1]:.3g}, ten times the median of {median(norms[:-1]):.3g}: lower rl.learning_rate"
    )


def retriever_slow(rows: Rows, settings: Settings) -> Notice | None:
    """Whether searches take five times as long as they did, and more than a second. Remedy: look at the retriever."""
    means = _means(rows, ["search_seconds"])
    if not means or means[-1] < 5 * min(means) or means[-1] < 1:
        return None
    return Notice(f"search_seconds grew from {min(means):.2f} to {means[-1]:.2f}: look at the retriever's load")
