"""What a trajectory earns: answer metrics, format rules, and the recipes that compose them. Pure functions."""

from r1searcher.rewards.format import FORMAT_RULES
from r1searcher.rewards.measures import MEASURES, Measure, measure
from r1searcher.rewards.metrics import score
from r1searcher.rewards.recipes import RECIPES, RewardBreakdown, reward_function

__all__ = ["FORMAT_RULES", "MEASURES", "RECIPES", "Measure", "RewardBreakdown", "measure", "reward_function", "score"]
