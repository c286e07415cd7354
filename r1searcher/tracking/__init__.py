"""Trackers of experiments in addition to TensorBoard: what the settings `[tracking]` name."""
