"""The table of measures: every number that is logged, shown or compared, what it means and where it is shown.

A measure of an episode has a function; the others are given by an engine, a dataset's own scorer or a judge. Live view,
curves, tables, the page, comparisons, held-out metrics, the demo and `[stop]` all read this table. Another package
adds a measure by an entry point of the group `r1searcher.measures`, named like the measure.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from statistics import fmean

from r1searcher.common.registry import Registry
from r1searcher.episodes.trajectory import Author, StopReason, Trajectory
from r1searcher.rewards import official
from r1searcher.rewards.format import MAX_ANSWER_WORDS, judged_rules
from r1searcher.rewards.parts import RewardContext


class View(StrEnum):
    """Where measures are shown."""

    LIVE = "live view"
    """A column of the table of steps, in the terminal and on a run's page."""

    CURVE = "curves"
    """A line of the learning curves."""

    TABLE = "tables"
    """A row of the tables of `evaluate`, `score` and `report`, with its interval."""

    INTERVAL = "interval plot"
    """A line of the page's plot of intervals; only for measures in 0..1."""

    PAGE = "page"
    """A number next to each trajectory on the page."""

    COMPARISON = "compare"
    """A row of `r1s compare`."""

    HELD_OUT = "held-out metrics"
    DEMO = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number of an episode, or of its step.

    `name` is its key in rows and reports, `label` its name in tables, `short` its name in narrow columns. `unit` is
    what it counts, empty for a share. Its values are in `range`, both ends included. `aggregate` makes one value of
    the samples of a question, and of the questions of a step. `compute` takes an episode and returns None where the
    measure does not apply; without it, something else gives the values.
    """

    name: str
    label: str
    meaning: str
    short: str = ""
    unit: str = ""
    range: tuple[float, float] = (0.0, 1.0)
    aggregate: Callable[[Sequence[float]], float] = fmean
    shown: frozenset[View] = frozenset(View) - {View.INTERVAL, View.DEMO}
    compute: Callable[[RewardContext], float | None] | None = None

    @property
    def heading(self) -> str:
        return self.short or self.label

    @property
    def is_in_training(self) -> bool:
        """Whether each step of training reports it, so that `[stop]` can name it."""
        return self.compute is not None or self in (REWARD, EPISODE_SECONDS)


def _in(*views: View) -> frozenset[View]:
    return frozenset(views)


COUNT = (0.0, math.inf)
_ANSWER = _in(View.TABLE, View.INTERVAL, View.PAGE, View.COMPARISON)
_ANYWHERE = _in(View.LIVE, View.CURVE, View.TABLE, View.COMPARISON, View.HELD_OUT, View.DEMO)


def _query_words(context: RewardContext) -> float | None:
    queries = [search.query for search in context.trajectory.searches]
    return fmean(len(query.split()) for query in queries) if queries else None


def _new_tokens(context: RewardContext) -> float:
    return float(sum(len(s.token_ids) for s in context.trajectory.segments if s.author is Author.MODEL))


BUILT_IN = (
    REWARD := Measure(
        name="reward",
        label="reward",
        meaning="sum of the reward parts",
        range=(-math.inf, math.inf),
        shown=_in(View.LIVE, View.CURVE),
    ),
    EM := Measure(
        name="em",
        label="EM, R1-Searcher",
        short="EM",
        meaning="the normalized answer is a normalized gold answer",
        shown=_ANSWER | {View.HELD_OUT, View.DEMO},
        compute=lambda context: context.scores.em,
    ),
    OFFICIAL_EM := Measure(
        name=official.EM,
        label="EM, official",
        meaning="EM of the dataset's own scorer",
        shown=_ANSWER,
    ),
    F1 := Measure(
        name="f1",
        label="F1, R1-Searcher",
        short="F1",
        meaning="harmonic mean of precision and recall over bags of words; 0 where one side is yes, no or noanswer and "
        "the other differs",
        shown=_ANSWER | _ANYWHERE,
        compute=lambda context: context.scores.f1,
    ),
    OFFICIAL_F1 := Measure(
        name=official.F1,
        label="F1, official",
        meaning="F1 of the dataset's own scorer",
        shown=_ANSWER,
    ),
    F1_ONE_HOP := Measure(
        name="f1_one_hop",
        label="F1, one hop",
        meaning="F1 of the held-out questions that need one search",
        shown=_in(View.DEMO),
    ),
    F1_TWO_HOP := Measure(
        name="f1_two_hop",
        label="F1, two hops",
        meaning="F1 of the held-out questions that need two searches",
        shown=_in(View.DEMO),
    ),
    OFFICIAL_ACCURACY := Measure(
        name=official.ACCURACY,
        label="accuracy, official",
        meaning="accuracy of the dataset's own scorer",
        shown=_ANSWER,
    ),
    COVER_EM := Measure(
        name="cover_em",
        label="cover EM, loose (ACC_R)",
        meaning="every word of a gold answer occurs in the answer, in any order: the paper's ACC_R",
        shown=_ANSWER,
        compute=lambda context: context.scores.cover_em,
    ),
    COVER_EM_CONTIGUOUS := Measure(
        name="cover_em_contiguous",
        label="cover EM, contiguous",
        meaning="a normalized gold answer is a substring of the normalized answer; one that normalizes to nothing is a "
        "substring of every answer",
        shown=_ANSWER,
        compute=lambda context: context.scores.cover_em_contiguous,
    ),
    JUDGE := Measure(
        name="judge",
        label="LLM judge (ACC_L)",
        meaning="a chat model says that the answer means a gold answer: the paper's ACC_L",
        shown=_ANSWER,
    ),
    FORMAT := Measure(
        name="format",
        label="format right",
        short="format rate",
        meaning="no format rule is broken",
        shown=_ANYWHERE,
        compute=lambda context: not context.violations,
    ),
    RETRIEVAL := Measure(
        name="retrieval",
        label="searched at least once",
        short="retrieval rate",
        meaning="at least one search was run",
        shown=_ANYWHERE - {View.COMPARISON},
        compute=lambda context: bool(context.trajectory.searches),
    ),
    SEARCHES := Measure(
        name="searches",
        label="searches per question",
        short="searches",
        meaning="searches run",
        unit="searches",
        range=COUNT,
        shown=_ANYWHERE,
        compute=lambda context: len(context.trajectory.searches),
    ),
    QUERY_WORDS := Measure(
        name="query_words",
        label="words per query",
        meaning="mean length of the queries, over episodes with a query; 0 for others in the logs of training",
        unit="words",
        range=COUNT,
        shown=_in(View.TABLE),
        compute=_query_words,
    ),
    ANSWER_IN_DOCUMENTS := Measure(
        name="answer_in_documents",
        label="gold answer in the documents",
        meaning="a normalized gold answer occurs as whole words in a line of the documents shown; says little for "
        "yes/no questions",
        shown=_in(View.TABLE, View.PAGE),
        compute=lambda context: context.answer_in_documents,
    ),
    NEW_TOKENS := Measure(
        name="new_tokens",
        label="tokens sampled",
        short="tokens",
        meaning="tokens that the model wrote",
        unit="tokens",
        range=COUNT,
        shown=_in(View.LIVE),
        compute=_new_tokens,
    ),
    SEARCH_SECONDS := Measure(
        name="search_seconds",
        label="seconds of search",
        meaning="time until the retriever answered, over all searches of the episode",
        unit="seconds",
        range=COUNT,
        shown=_in(),
        compute=lambda context: sum(search.seconds for search in context.trajectory.searches),
    ),
    EPISODE_SECONDS := Measure(
        name="episode_seconds",
        label="seconds per episode",
        meaning="time from prompt to stop, while other episodes run",
        unit="seconds",
        range=COUNT,
        shown=_in(),
    ),
    STALENESS := Measure(
        name="staleness",
        label="staleness",
        meaning="updates between the weights that an episode was sampled from and the step that trains it; logged for "
        "asynchronous rollouts",
        unit="updates",
        range=COUNT,
        shown=_in(View.LIVE, View.CURVE),
    ),
    LARGEST_STALENESS := Measure(
        name="staleness_max",
        label="largest staleness",
        meaning="largest staleness of a step's episodes; a run stops where it is over engine.async_steps",
        unit="updates",
        range=COUNT,
        aggregate=max,
        shown=_in(View.LIVE),
    ),
)

MEASURES: Registry[Measure] = Registry(
    "measure", "r1searcher.measures", {m.name: m for m in BUILT_IN}, Measure, named=True
)


@cache
def shown_in(view: View) -> tuple[Measure, ...]:
    """The measures that a view shows, in the order of the table."""
    return tuple(measure_ for measure_ in MEASURES.values() if view in measure_.shown)


def measure(
    trajectory: Trajectory, max_answer_words: int = MAX_ANSWER_WORDS, format_rules: tuple[str, ...] = ()
) -> dict[str, float]:
    """What every log shows of an episode, whatever it is rewarded for: each measure that applies to it, by name.

    `format/<rule>` is there for each broken rule, `stop/<reason>` for the one reason, both 1. A value that is not
    finite is left out.
    """
    context = RewardContext(trajectory, max_answer_words, format_rules)
    values = {}
    for name, compute in _computed():
        value = compute(context)
        if value is not None and math.isfinite(value):
            values[name] = float(value)
    for rule in context.violations:
        values[f"format/{rule}"] = 1.0
    values[f"stop/{trajectory.stop}"] = 1.0
    return values


@cache
def _computed() -> tuple[tuple[str, Callable[[RewardContext], float | None]], ...]:
    return tuple((m.name, m.compute) for m in MEASURES.values() if m.compute is not None)


def episode_logs(
    trajectory: Trajectory,
    parts: Mapping[str, float],
    seconds: float,
    max_answer_words: int,
    format_rules: tuple[str, ...] = (),
) -> dict[str, float]:
    """What training logs of an episode. Every episode has the same keys, as means over a step need: 0 where a measure
    does not apply."""
    return {
        **{f"format/{rule}": 0.0 for rule in judged_rules(format_rules)},
        **{f"stop/{reason.value}": 0.0 for reason in StopReason},
        **{name: 0.0 for name, _ in _computed()},
        **measure(trajectory, max_answer_words, format_rules),
        **{f"reward/{name}": value for name, value in parts.items()},
        EPISODE_SECONDS.name: seconds,
    }
