"""Downloading named corpora from a real HTTP server that drops connections, resumes and sends wrong data."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from r1searcher.corpora.fetch import fetch
from r1searcher.corpora.formats import FORMATS
from r1searcher.corpora.named import CORPORA, NamedCorpus
from r1searcher.errors import InputError

CONTENT = bytes(range(256)) * 2000


class Server(ThreadingHTTPServer):
    """Serves CONTENT with ranges; disconnects after `cut_after` bytes of each response, responds with `status`."""

    cut_after: int | None = None
    status: int | None = None
    linked_etag: str | None = None
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _start(self) -> bytes:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(self.server.status or (206 if asked else 200))
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if self.server.linked_etag:
            self.send_header("X-Linked-Etag", f'"{self.server.linked_etag}"')
        self.end_headers()
        return CONTENT[start:]

    def do_HEAD(self) -> None:
        self._start()

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Range"))
        content = self._start()
        self.wfile.write(content[: self.server.cut_after])
        if self.server.cut_after is not None and self.server.cut_after < len(content):
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def corpus(server: Server, checksum: str | None = None) -> NamedCorpus:
    good = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    url = f"http://127.0.0.1:{server.server_address[1]}/corpus.jsonl.gz"
    return NamedCorpus(url, "", "jsonl", len(CONTENT), checksum or good)


def no_pause(seconds: float) -> None:
    pass


def test_a_transfer_that_breaks_is_taken_up_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after = 200_000
    progress: list[tuple[int, int]] = []
    path = fetch(corpus(server), tmp_path, lambda done, total: progress.append((done, total)), no_pause)
    assert path.read_bytes() == CONTENT
    starts = [int((asked or "bytes=0-").removeprefix("bytes=").rstrip("-")) for asked in server.asked]
    assert len(starts) == 3
    assert 0 == starts[0] < starts[1] < starts[2] <= 400_000
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in tmp_path.iterdir()] == ["corpus.jsonl.gz"]


def test_a_fetched_corpus_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(corpus(server), tmp_path)
    fetch(corpus(server), tmp_path)
    assert server.asked == [None]


def test_a_part_left_by_an_earlier_command_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl.gz.part").write_bytes(CONTENT[:1000])
    assert fetch(corpus(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_damaged_file_never_gets_the_name(server: Server, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl.gz.part").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match=r"does not have the sha256 .* corrupted"):
        fetch(corpus(server), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checksum_only_the_server_states_is_checked_too(server: Server, tmp_path: Path) -> None:
    server.linked_etag = hashlib.sha256(b"other").hexdigest()
    unstated = NamedCorpus(corpus(server).url, "")
    with pytest.raises(InputError, match="does not have the sha256"):
        fetch(unstated, tmp_path)
    server.linked_etag = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(unstated, tmp_path).read_bytes() == CONTENT


def test_a_server_that_gives_nothing_ends_with_the_file_to_bring(server: Server, tmp_path: Path) -> None:
    server.cut_after = 0
    with pytest.raises(InputError, match=r"could not be downloaded .* put it at .*corpus\.jsonl\.gz"):
        fetch(corpus(server), tmp_path, pause=no_pause)
    assert len(server.asked) == 5
    server.status = 404
    with pytest.raises(InputError, match="status 404"):
        fetch(corpus(server), tmp_path, pause=no_pause)
    assert len(server.asked) == 6, "a missing file is not requested again"


def test_no_network_is_one_sentence_with_the_file_to_bring(tmp_path: Path) -> None:
    unreachable = NamedCorpus("http://127.0.0.1:9/corpus.gz", "")
    with pytest.raises(
        InputError, match=r"the corpus could not be downloaded from http://127.0.0.1:9/corpus.gz \(.*refused.*\)"
    ):
        fetch(unreachable, tmp_path, pause=no_pause)


def test_the_known_names() -> None:
    assert set(CORPORA) == {"hotpotqa-abstracts", "kilt-100w", "wiki-18"}
    assert {corpus.format for corpus in CORPORA.values()} <= set(FORMATS)
