"""What the command `plan` does."""

from r1searcher.common.terminal import console, json_line
from r1searcher.config.source import SettingsSource
from r1searcher.errors import InputError
from r1searcher.planning.derive import card_bytes
from r1searcher.planning.memory import GIB
from r1searcher.planning.plan import PEAK_FLOPS, STAGE, TOKENS_PER_EPISODE, TRAINING_SHARE, Plan, make_plan
from r1searcher.planning.shapes import shape_of

ASSUMED_CARD = int(80e9)
"""Where neither the settings nor the driver say how much memory a card has."""


def run_plan(source: SettingsSource, *, as_json: bool = False) -> None:
    """Print the plan. Raises `InputError` where it does not fit, with the smallest change that makes it fit."""
    settings = source.load(STAGE, {"engine.device": "gpu"})
    plan = make_plan(settings, shape_of(settings.model.path), card_bytes(settings) or ASSUMED_CARD)
    if as_json:
        json_line(plan.as_json())
    else:
        _print(plan)
    if not plan.fits:
        raise InputError(_refusal(plan))


def _refusal(plan: Plan) -> str:
    said = plan.problems
    if plan.change:
        said.append(f"set {plan.change}")
    elif plan.shortfall:
        said.append("no single setting makes it fit: use more or larger cards")
    return "; ".join(said)


def _print(plan: Plan) -> None:
    from rich.table import Table

    out = console()
    nodes, per_node = plan.topology.nodes, plan.topology.gpus_per_node
    out.print(
        f"{plan.settings.model.path}: {plan.shape.parameters / 1e9:.2f} billion parameters on {nodes} x {per_node} "
        f"cards of {plan.card / GIB:.1f} GiB",
        soft_wrap=True,
    )
    table = Table("per card, GiB", "training", "sampling", box=None, padding=(0, 2))
    names = dict.fromkeys((*plan.memory.training, *plan.memory.sampling))
    for name in names:
        cells = (items.get(name) for items in (plan.memory.training, plan.memory.sampling))
        table.add_row(name, *("" if cell is None else f"{cell / GIB:.1f}" for cell in cells))
    table.add_row("total", *(f"{total / GIB:.1f}" for total in plan.memory.totals), style="bold")
    out.print(table)
    for reason in plan.derived:
        out.print(reason, soft_wrap=True)
    for line in (
        f"cache of vLLM: {plan.episodes_at_once} episodes of {plan.settings.episode.max_context} tokens at once",
        f"host memory per node: {plan.host_memory / GIB:.0f} GiB; disk for checkpoints and model: "
        f"{plan.checkpoint_disk / GIB:.0f} GiB",
        f"per step: {plan.settings.rl.rollouts} episodes, at most {plan.searches_per_step} searches, "
        f"{plan.tokens_per_step[0]} to {plan.tokens_per_step[1]} tokens written, {_minutes(plan)}",
        _hours(plan),
        f"assumed, not measured: {TOKENS_PER_EPISODE[0]} to {TOKENS_PER_EPISODE[1]} tokens written per episode, cards "
        f"of {PEAK_FLOPS / 1e12:.0f} TFLOPS, of which training uses {TRAINING_SHARE[0]:.0%} to {TRAINING_SHARE[1]:.0%}",
    ):
        out.print(line, soft_wrap=True)


def _minutes(plan: Plan) -> str:
    low, high = plan.hours_per_step
    return f"{60 * low:.1f} to {60 * high:.1f} minutes"


def _hours(plan: Plan) -> str:
    if plan.hours is None:
        low, high = (1000 / plan.settings.rl.questions_per_step * hours for hours in plan.hours_per_step)
        return f"{low:.1f} to {high:.1f} hours per 1,000 questions: the questions are not on this machine"
    low, high = plan.hours
    return f"{low:.1f} to {high:.1f} hours for {plan.steps} steps"
