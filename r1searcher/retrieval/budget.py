"""A limit on paid searches that many processes and resumed runs share: one SQLite file counts them."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1searcher.errors import FileError, InputError, RunStopped

_WAIT_SECONDS = 60.0
_FORMAT = 1


class Budget:
    """Counts searches and their cost in a file, and stops a run before a limit is exceeded.

    A search is counted before it is sent, so that a crash never makes the count too low. Raises `FileError` if the file
    cannot be used, and `InputError` if it is something else.
    """

    def __init__(self, file: Path, *, searches: int | None, usd: float | None, cost_usd: float) -> None:
        self._file = file
        self._searches = searches
        self._usd = usd
        self._cost = cost_usd
        with self._database() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and version != _FORMAT:
                raise InputError(f"{file} is not a count of paid searches: choose another budget_file")
            database.executescript(
                f"""BEGIN IMMEDIATE;
                CREATE TABLE IF NOT EXISTS spent (one INTEGER PRIMARY KEY CHECK (one = 1), searches INTEGER, usd REAL);
                INSERT OR IGNORE INTO spent VALUES (1, 0, 0.0);
                PRAGMA user_version = {_FORMAT};
                COMMIT;"""
            )

    async def spend(self, searches: int = 1) -> None:
        """Counts searches that are about to be sent. Raises `RunStopped`, and counts none, if they are too many."""
        await asyncio.to_thread(self._spend, searches)

    def spent(self) -> tuple[int, float]:
        """Searches and US dollars so far."""
        with self._database() as database:
            searches, usd = database.execute("SELECT searches, usd FROM spent").fetchone()
            return int(searches), float(usd)

    def _spend(self, searches: int) -> None:
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")
            before, usd = database.execute("SELECT searches, usd FROM spent").fetchone()
            after = before + searches
            cost = after * self._cost if usd == before * self._cost else usd + searches * self._cost
            if self._searches is not None and after > self._searches:
                raise RunStopped(self._exceeded(f"{self._searches:,} searches", before, usd, "budget_searches"))
            if self._usd is not None and cost > self._usd * (1 + 1e-9):  # rounding of sums is no search more
                raise RunStopped(self._exceeded(f"${self._usd:,.2f}", before, usd, "budget_usd"))
            database.execute("UPDATE spent SET searches = ?, usd = ?", (after, cost))
            database.execute("COMMIT")

    def _exceeded(self, limit: str, searches: int, usd: float, setting: str) -> str:
        return (
            f"the budget of {limit} is used up: {searches:,} searches for ${usd:,.2f} are counted in {self._file}; "
            f"raise retrieval.{setting} to continue"
        )

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self._file, timeout=_WAIT_SECONDS, isolation_level=None)
            try:
                yield database
            finally:
                database.close()  # rolls back what is not committed
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise InputError(f"{self._file} is not a count of paid searches: choose another budget_file") from error
            raise FileError(f"{self._file}: paid searches cannot be counted ({error})") from error
