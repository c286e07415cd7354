"""Every error a user can meet, in one small tree.

The command line prints the sentence of an `R1Error`, without a traceback, and leaves with its exit code. Code that
calls into another library catches that library's exceptions at one boundary and raises one of these, with `from`.
"""


class R1Error(Exception):
    """Base of all errors that carry a sentence for the user: what happened, where, and what mends it."""

    exit_code = 1


class InputError(R1Error):
    """A setting, a file or an argument is wrong; nothing was started."""

    exit_code = 2


class RetrieverError(R1Error):
    """A search engine could not answer. Never turned into an empty result: an outage must not become a reward."""


class RunStopped(R1Error):
    """A run was stopped on purpose (retriever lost for too long, rollouts no longer from the trained weights, …)."""
