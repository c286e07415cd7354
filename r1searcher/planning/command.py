"""What the command `plan` does."""

from r1searcher.common.terminal import console, json_line
from r1searcher.config.source import SettingsSource
from r1searcher.errors import InputError
from r1searcher.planning.derive import card_bytes
from r1searcher.planning.memory import GIB
from r1searcher.planning.plan import PEAK_FLOPS, STAGE, TOKENS_PER_EPISODE, Plan, make_plan
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
    remedy = f"set {plan.change}" if plan.change else "no single setting makes it fit: use more or larger cards"
    return f"{'; '.join(plan.problems)}; {remedy}"


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
    steps = f"{plan.steps} steps" if plan.steps else "one pass over the questions"
    low, high = plan.hours_per_step
    for line in (
        f"cache of vLLM: {plan.episodes_at_once} episodes of {plan.settings.episode.max_context} tokens at once",
        f"host memory per node: {plan.host_memory / GIB:.0f} GiB; disk for checkpoints and model: "
        f"{plan.checkpoint_disk / GIB:.0f} GiB",
        f"per step: {plan.settings.rl.rollouts} episodes, at most {plan.searches_per_step} searches",
        f"{steps}; {60 * low:.1f} to {60 * high:.1f} minutes per step on cards of {PEAK_FLOPS / 1e12:.0f} TFLOPS, if "
        f"an episode writes {TOKENS_PER_EPISODE[0]} to {TOKENS_PER_EPISODE[1]} tokens (assumed, not measured)",
    ):
        out.print(line, soft_wrap=True)
