"""One model for the searches of many episodes."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from r1searcher.errors import RetrieverError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Shared(Generic[Item, Result]):
    """Runs a model, in a thread, on the items of several episodes together.

    Those that arrive during a run wait for the next one. `run` returns one result per item, in order.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]], what: str) -> None:
        self._run = run
        self._what = what
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=what)
        self._waiting: list[tuple[Sequence[Item], asyncio.Future[list[Result]]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[Item]) -> list[Result]:
        """Raises `RetrieverError` if the model failed, for example for lack of memory."""
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # those of the same moment go together
        while self._waiting:
            batch, self._waiting = self._waiting, []
            together = [item for items, _ in batch for item in items]
            try:
                results = list(await loop.run_in_executor(self._thread, self._run, together))
            except Exception as error:
                failure = RetrieverError(f"the {self._what} failed: {type(error).__name__}: {error}")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(failure)
                continue
            start = 0
            for items, future in batch:
                if not future.done():
                    future.set_result(results[start : start + len(items)])
                start += len(items)
