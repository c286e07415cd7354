"""Held-out questions -> figures with intervals -> report."""
