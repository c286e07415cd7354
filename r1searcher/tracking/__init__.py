"""Trackers of experiments beside TensorBoard: what the settings `[tracking]` name."""
