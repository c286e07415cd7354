"""Every error a user can meet, in one small tree.

The command line prints the sentence of an `R1Error`, without a traceback, and leaves with its exit code. Code that
calls into another library catches that library's exceptions at one boundary and raises one of these, with `from`.
"""


class R1Error(Exception):
    """Base of all errors that carry a sentence for the user: what happened, where, and what fixes it."""

    exit_code = 1


class InputError(R1Error):
    """A setting, a file or an argument is wrong; nothing was started."""

    exit_code = 2


class FileError(R1Error):
    """A file could not be read or written: full disk, missing permission, read-only file system."""


class ServiceError(R1Error):
    """Something on the network could not answer: a search engine, a model server, a judge, a download.

    `transient` says whether the same request may succeed later (no connection, time-out, 408, 429, 5xx) or never will
    (any other 4xx, an answer of the wrong shape). `retry_after` holds the seconds that the server asked to wait.
    """

    def __init__(self, message: str, *, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class RetrieverError(ServiceError):
    """A search engine could not answer. Never turned into an empty result: an outage must not become a reward."""


class RunStopped(R1Error):
    """A run was stopped on purpose (retriever lost for too long, rollouts no longer from the trained weights, …)."""
