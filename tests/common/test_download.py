"""Downloads from real servers. Resuming and checksums of corpora: tests/corpora/test_named.py."""

import fcntl
import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from r1searcher.common import download as module
from r1searcher.common.download import download
from r1searcher.errors import InputError, ServiceError
from tests.common.servers import Raw, answer, raw_server, redirect

CONTENT = bytes(range(256)) * 1000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(status: int, tmp_path: Path) -> None:
    with raw_server(answer(CONTENT)) as there, raw_server(redirect(status, f"{there.url}/file")) as here:
        path = download(f"{here.url}/x", tmp_path / "deep" / "f", checksum=DIGEST)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["f"]


@pytest.mark.parametrize("to", ["/again", "http://me:secret@127.0.0.1/", "ftp://x/", "http://[", "http://a b/"])
def test_a_redirect_without_end_or_to_nonsense_is_one_sentence(to: str, tmp_path: Path) -> None:
    with raw_server(redirect(302, to)) as server, pytest.raises(ServiceError, match="redirects") as raised:
        download(f"{server.url}/x", tmp_path / "f")
    assert len(server.requests) <= 7
    assert "secret" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_end_is_broken_off(tmp_path: Path) -> None:
    def endless(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not request.startswith(b"HEAD"):
            connection.sendall(b" " * (1 << 16))

    with raw_server(endless) as server, pytest.raises(ServiceError, match="sent more than 1,000,000 bytes"):
        download(f"{server.url}/x", tmp_path / "f", most=1_000_000)
    assert list(tmp_path.iterdir()) == []


def test_one_byte_at_a_time_is_broken_off_and_what_came_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WINDOW", 1.0)

    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 256000\r\n\r\n" + CONTENT[:100_000])
        while not server.stop.wait(0.05):
            connection.sendall(b"!")

    def after_that(pause: float) -> None:
        server.behave = answer(CONTENT)

    with raw_server(drip) as server:
        assert download(f"{server.url}/x", tmp_path / "f", checksum=DIGEST, pause=after_that).read_bytes() == CONTENT
    assert b"range: bytes=100" in server.requests[1].lower()


def test_without_a_checksum_a_part_is_not_continued(tmp_path: Path) -> None:
    """It may belong to another file."""
    (tmp_path / "f.part").write_bytes(b"other")
    with raw_server(answer(CONTENT)) as server:
        assert download(f"{server.url}/x", tmp_path / "f").read_bytes() == CONTENT
    assert not any(b"range:" in request.lower() for request in server.requests)


def test_a_full_disk_is_one_sentence_with_the_remedy(tmp_path: Path) -> None:
    """The kernel prevents the file from growing, as on a full disk."""
    program = """
import resource, sys
from pathlib import Path
from r1searcher.common.download import download
from r1searcher.errors import FileError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    download(sys.argv[1], Path(sys.argv[2]))
except FileError as error:
    print(error)
"""
    with raw_server(answer(CONTENT)) as server:
        command = [sys.executable, "-c", program, f"{server.url}/x", str(tmp_path / "f")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "f.part cannot be written: the file would be larger than is allowed here; the downloaded part" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_two_processes_do_not_write_into_one_file(tmp_path: Path) -> None:
    with (tmp_path / "f.part").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is downloading"):
            download("http://127.0.0.1:9/x", tmp_path / "f")
        assert (tmp_path / "f.part").exists()


@pytest.mark.parametrize("url", ["http://me:geheim@h/x", "http://h:port/x", "file:///etc/passwd", "http://h/\x00"])
def test_a_malformed_url_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the download's URL") as raised:
        download(url, tmp_path / "f")
    assert "geheim" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again_after_what_it_asks_for(tmp_path: Path) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        server.behave = answer(CONTENT)

    def busy(server: Raw) -> None:
        server.behave = answer(b"", "429 Slow down", "Retry-After: 11")

    with raw_server(answer(b"")) as server:
        busy(server)
        assert download(f"{server.url}/x", tmp_path / "f", pause=pause).read_bytes() == CONTENT
    assert pauses == [11.0]
