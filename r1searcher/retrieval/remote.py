"""A retrieval server on the network: Search-R1's protocol (`/retrieve`) or R1-Searcher's (`/queries`)."""

import asyncio
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import urllib3

from r1searcher.corpora.formats import FORMATS, BadRow
from r1searcher.corpora.passage import Passage
from r1searcher.errors import InputError, RetrieverError
from r1searcher.retrieval.base import Health, Hit, clean_query

_THREADS = 32
_TIMEOUT = urllib3.Timeout(connect=10, read=120)


class RemoteRetriever:
    """`http://host:port/retrieve` or `http://host:port/queries`. Requests run in threads."""

    def __init__(self, url: str) -> None:
        path = urlsplit(url).path.rstrip("/").rpartition("/")[2]
        if path not in ("retrieve", "queries"):
            raise InputError(f"{url} is no retrieval server: its address ends in /retrieve or /queries.")
        self._url = url
        self._ask = self._search_r1 if path == "retrieve" else self._r1_searcher
        self._connections = urllib3.PoolManager(maxsize=_THREADS, retries=False, timeout=_TIMEOUT)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="remote")

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        if not queries or top_k < 1:
            return [[] for _ in queries]
        cleaned = [clean_query(query) for query in queries]
        asked = [query for query in cleaned if query.strip()]  # servers refuse a batch with an empty query
        found = iter(await self._in_thread(self._ask, asked, top_k) if asked else [])
        return [next(found) if query.strip() else [] for query in cleaned]

    async def health(self) -> Health:
        """What the server says of itself; a server without `/health` that answers a search has no count and no hash."""
        answer = await self._in_thread(self._get_health)
        if answer is None:
            await self.search(["health"], 1)
            return Health(self._url, 0, "")
        return Health(self._url, int(answer.get("passages") or 0), str(answer.get("settings_hash") or ""))

    async def aclose(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._connections.clear()

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def _search_r1(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        answer = self._post({"queries": queries, "topk": top_k, "return_scores": True})
        found = self._lists(answer, "result", len(queries))
        return [[self._search_r1_hit(item, place) for place, item in enumerate(items[:top_k], 1)] for items in found]

    def _search_r1_hit(self, item: Any, place: int) -> Hit:
        if not isinstance(item, dict):
            raise self._malformed("a result is not an object")
        document, score = item.get("document", item), item.get("score", 1 / place)
        if not isinstance(document, dict) or not isinstance(score, (int, float)):
            raise self._malformed("a result has no document or no score")
        document = {"id": f"{self._url}#{place}", **document}
        return Hit(self._passage("jsonl", json.dumps(document).encode()), float(score))

    def _r1_searcher(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """This protocol gives no scores: the reciprocal of the rank stands in."""
        answer = self._post({"queries": queries, "k": top_k})
        found = self._lists(answer, "answers", len(queries))
        return [
            [
                Hit(self._passage("r1-searcher", str(row).replace("\n", " ").encode("utf-8", "replace")), 1 / place)
                for place, row in enumerate(rows[:top_k], 1)
            ]
            for rows in found
        ]

    def _passage(self, format_: str, row: bytes) -> Passage:
        (item,) = FORMATS[format_](io.BytesIO(row)) if row.strip() else (BadRow(1, "empty", ""),)
        if isinstance(item, BadRow):
            raise self._malformed(f"a passage is unreadable, {item.reason}")
        return item

    def _lists(self, answer: Any, key: str, count: int) -> list[list[Any]]:
        found = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(found, list) or len(found) != count or not all(isinstance(row, list) for row in found):
            raise self._malformed(f"`{key}` is not a list of {count} lists")
        return found

    def _malformed(self, why: str) -> RetrieverError:
        return RetrieverError(f"{self._url} gave an answer that its protocol does not have: {why}.")

    def _post(self, body: Any) -> Any:
        answer = self._request("POST", self._url, body=json.dumps(body), headers={"Content-Type": "application/json"})
        if answer.status != 200:
            raise RetrieverError(f"{self._url} answered with status {answer.status}: {_said(answer)}")
        try:
            return json.loads(answer.data)
        except ValueError as error:
            raise self._malformed("not JSON") from error

    def _get_health(self) -> dict[str, Any] | None:
        answer = self._request("GET", self._url.rpartition("/")[0] + "/health")
        if answer.status in (404, 405):
            return None
        if answer.status != 200:
            raise RetrieverError(f"{self._url} is not well, status {answer.status}: {_said(answer)}")
        try:
            row = json.loads(answer.data)
        except ValueError:
            return None
        return row if isinstance(row, dict) else None

    def _request(self, method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:
        try:
            return self._connections.request(method, url, **options)
        except urllib3.exceptions.HTTPError as error:
            reason = str(error).rpartition(": ")[2]
            raise RetrieverError(f"The retrieval server {self._url} does not answer ({reason}).") from error


def _said(answer: urllib3.BaseHTTPResponse) -> str:
    return answer.data[:300].decode("utf-8", "replace").strip()
