"""What a trajectory earns: answer metrics, format rules, and the recipes that compose them. Pure functions."""
