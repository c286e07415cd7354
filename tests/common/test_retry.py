"""The retry policy, with pauses recorded instead of slept."""

import asyncio
import random

import pytest

from r1searcher.common.retry import RetryPolicy
from r1searcher.errors import InputError, ServiceError


class Fails:
    """Raises the given errors in sequence, then returns 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7

    async def later(self) -> int:
        return self()


def down(retry_after: float | None = None) -> ServiceError:
    return ServiceError("down", transient=True, retry_after=retry_after)


def pauses_of(policy: RetryPolicy, *errors: Exception) -> list[float]:
    pauses: list[float] = []
    assert policy.call(Fails(*errors), sleep=pauses.append) == 7
    return pauses


def test_pauses_grow_with_jitter_up_to_the_longest() -> None:
    policy = RetryPolicy(tries=100, first_pause=1.0, longest_pause=8.0)
    for pauses in (pauses_of(policy, *(down() for _ in range(8))) for _ in range(20)):
        for pause, most in zip(pauses, (1, 2, 4, 8, 8, 8, 8, 8), strict=True):
            assert most / 2 <= pause <= most
    assert len({pauses_of(policy, down())[0] for _ in range(20)}) > 1, "clients do not come back together"


def test_the_global_random_generator_is_left_alone() -> None:
    random.seed(3)
    before = random.getstate()
    pauses_of(RetryPolicy(tries=9), down(), down())
    assert random.getstate() == before


def test_retry_after_is_respected_within_a_bound() -> None:
    policy = RetryPolicy(tries=9, first_pause=0.1, longest_asked=60.0)
    assert pauses_of(policy, down(5.0), down(1e9), down(0.0))[:2] == [5.0, 60.0]
    assert pauses_of(RetryPolicy(deadline=2.0), down(30.0))[0] <= 2.0


@pytest.mark.parametrize("error", [ServiceError("no"), InputError("no"), ValueError("no"), KeyboardInterrupt()])
def test_only_what_may_pass_is_tried_again(error: Exception) -> None:
    fails = Fails(error)
    with pytest.raises(type(error)):
        RetryPolicy(tries=9).call(fails, sleep=lambda _: None)
    assert fails.calls == 1


def test_the_number_of_tries_and_the_last_error() -> None:
    last = down()
    fails = Fails(down(), down(), last)
    with pytest.raises(ServiceError) as raised:
        RetryPolicy(tries=3).call(fails, sleep=lambda _: None)
    assert raised.value is last
    assert fails.calls == 3


def test_headway_starts_the_count_anew() -> None:
    done = 0

    def work() -> int:
        nonlocal done
        if done < 20:
            done += 1
            raise down()
        return done

    assert RetryPolicy(tries=2).call(work, headway=lambda: done, sleep=lambda _: None) == 20


def test_the_deadline_counts_from_the_first_failure_and_the_last_try_falls_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    tries: list[float] = []

    def work() -> int:
        nonlocal now
        now += 100  # a request that reaches its time limit
        tries.append(now)
        raise down()

    def sleep(pause: float) -> None:
        nonlocal now
        now += pause

    monkeypatch.setattr("r1searcher.common.retry.time.monotonic", lambda: now)
    with pytest.raises(ServiceError):
        RetryPolicy(deadline=250.0, first_pause=1.0, longest_pause=15.0).call(work, sleep=sleep)
    assert tries[0] == 100
    assert 350 <= tries[-1] <= 450 + 1


def test_coroutines_and_what_is_told() -> None:
    errors = [down(), down()]
    told: list[ServiceError] = []
    fails = Fails(*errors)
    policy = RetryPolicy(deadline=60.0, first_pause=0.01)
    assert asyncio.run(policy.acall(fails.later, on_failure=told.append)) == 7
    assert told == errors
    assert asyncio.run(policy.acall(lambda: Fails().later())) == 7
