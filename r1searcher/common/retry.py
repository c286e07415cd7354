"""The retry policy: what is retried, after which pause, and for how long.

Only a transient `ServiceError` is retried. Pauses grow exponentially with jitter, so that many clients do not retry
at the same moment, and are at least as long as the server's `Retry-After`, within a bound. The loop itself is
tenacity's.
"""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from r1searcher.errors import ServiceError

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

_random = random.Random()  # not the global generator, which other code may have seeded


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to stop retrying, and how long to pause. Times are in seconds.

    `tries` limits consecutive failures, `deadline` the time since the first of them; None means no limit. The last
    pause is shortened so that the last try is at the deadline. `longest_asked` limits the effect of `Retry-After`.
    """

    tries: int | None = None
    deadline: float | None = None
    first_pause: float = 0.5
    longest_pause: float = 15.0
    longest_asked: float = 60.0

    def call(
        self,
        work: Callable[[], T],
        *,
        on_failure: Callable[[ServiceError], None] = lambda error: None,
        headway: Callable[[], object] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> T:
        """The result of `work`. Raises its last error if that is permanent or the policy's limits are reached.

        `on_failure` is called with every transient error. If `headway` returns another value than after the previous
        failure, the count of failures restarts: a download that makes progress does not fail.
        """
        from tenacity import Retrying

        return Retrying(sleep=sleep, **_Failures(self, on_failure, headway).options)(work)

    async def acall(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        on_failure: Callable[[ServiceError], None] = lambda error: None,
        headway: Callable[[], object] = lambda: None,
    ) -> T:
        """`call` for a coroutine function."""
        from tenacity import AsyncRetrying

        async def awaited() -> T:  # tenacity treats a lambda that returns an awaitable as an ordinary function
            return await work()

        return await AsyncRetrying(**_Failures(self, on_failure, headway).options)(awaited)


class _Failures:
    """The failures of one call so far."""

    def __init__(
        self, policy: RetryPolicy, on_failure: Callable[[ServiceError], None], headway: Callable[[], object]
    ) -> None:
        self._policy = policy
        self._on_failure = on_failure
        self._headway = headway
        self._at = headway()
        self._count = 0
        self._first = 0.0

    @property
    def options(self) -> dict[str, Any]:
        from tenacity import retry_if_exception

        return {
            "retry": retry_if_exception(_is_transient),
            "after": self._note,
            "wait": self._pause,
            "stop": self._over,
            "reraise": True,
        }

    def _note(self, state: "RetryCallState") -> None:
        if (at := self._headway()) != self._at:
            self._at, self._count = at, 0
        if not self._count:
            self._first = time.monotonic()
        self._count += 1
        self._on_failure(_error(state))

    def _pause(self, state: "RetryCallState") -> float:
        policy = self._policy
        pause = min(policy.first_pause * 2.0 ** min(self._count - 1, 60), policy.longest_pause)
        pause *= _random.uniform(0.5, 1)
        pause = max(pause, min(_error(state).retry_after or 0.0, policy.longest_asked))
        return pause if policy.deadline is None else min(pause, max(0.0, policy.deadline - self._elapsed()))

    def _over(self, state: "RetryCallState") -> bool:
        policy = self._policy
        return (policy.tries is not None and self._count >= policy.tries) or (
            policy.deadline is not None and self._elapsed() >= policy.deadline
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._first


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, ServiceError) and error.transient


def _error(state: "RetryCallState") -> ServiceError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ServiceError)
    return error
