"""Confidence intervals of means: percentile bootstrap over questions (Efron and Tibshirani 1993, chapter 13)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 7


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def resampled_means(values: Sequence[float], seed: int = SEED) -> npt.NDArray[np.float64]:
    """Means of `RESAMPLES` bootstrap samples of `values`, shape (RESAMPLES,).

    Drawn as counts of the distinct values, which has the same distribution and needs little memory for many rows.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=RESAMPLES)
    means: npt.NDArray[np.float64] = drawn @ distinct / len(values)
    return means


def interval(values: Sequence[float]) -> Interval:
    """Mean and interval of one value per question. Raises `ValueError` if there are none."""
    if not values:
        raise ValueError("cannot compute the mean of an empty sequence")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled_means(values), [tail, 1 - tail])
    return Interval(float(np.mean(values)), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Difference:
    """B minus A, question by question: mean difference, its 95 % interval, two-sided p."""

    value: float
    low: float
    high: float
    p: float
    better: int
    worse: int

    @property
    def significant(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > 0 or self.high < 0


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Paired bootstrap of two systems on the same questions.

    p is the share of resampled differences at or beyond 0 on the other side, doubled (at most 1).
    """
    differences = [y - x for x, y in zip(a, b, strict=True)]
    means = resampled_means(differences)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    p = min(1.0, 2 * min(float(np.mean(means <= 0)), float(np.mean(means >= 0))))
    return Difference(
        float(np.mean(differences)),
        float(low),
        float(high),
        p,
        sum(d > 0 for d in differences),
        sum(d < 0 for d in differences),
    )
