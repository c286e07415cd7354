"""r1searcher: reinforcement learning that teaches a language model to search while it reasons."""

__version__ = "0.1.0"
