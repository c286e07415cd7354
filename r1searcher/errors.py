"""The hierarchy of errors that a user can see.

The command line prints the sentence of an `R1Error`, without a traceback, and exits with its exit code. Code that
calls another library catches that library's exceptions at one boundary and raises one of these, with `from`.
"""


class R1Error(Exception):
    """Base of all errors with a sentence for the user: what happened, where, and how to fix it."""

    exit_code = 1


class InputError(R1Error):
    """A setting, file or argument is wrong; nothing was started."""

    exit_code = 2


class FileError(R1Error):
    """A file could not be read or written: full disk, missing permission, read-only file system."""


class ServiceError(R1Error):
    """Something on the network could not answer: a search engine, a model server, a judge, a download.

    `transient` says whether the same request may succeed later (no connection, timeout, 408, 429, 5xx) or never will
    (any other 4xx, a response of the wrong shape). `retry_after` is the wait that the server asked for, in seconds.
    """

    def __init__(self, message: str, *, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class RetrieverError(ServiceError):
    """A search engine could not answer. Never turned into an empty result: an outage must not become a reward."""


class RunStopped(R1Error):
    """A run was deliberately stopped (retriever down for too long, rollouts not from the trained weights, …)."""
