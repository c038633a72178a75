"""Clients that begin a request and do not go on hold nothing for long; those that take their time are served."""

import socket
import time

import pytest
from servers import serving
from stores import context

HEAD = b"POST /v1/validate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("slow")
    context(root, "[api]\nhead_sec = 1.5\nbody_sec = 1.5\n")
    with serving(root, "--no-tick") as server:
        host, port = server.url.removeprefix("http://").split(":")
        yield host, int(port)


def sent(address, *pieces: bytes, pause_sec: float = 0.0) -> tuple[bytes, float]:
    """Send the pieces with pauses between them; all that was answered until the server closed, and after how long."""
    began, said = time.monotonic(), b""
    with socket.create_connection(address, timeout=30) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break
            time.sleep(pause_sec)
        try:
            while data := connection.recv(65536):
                said += data
        except ConnectionResetError:
            pass
    return said, time.monotonic() - began


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((b"",), b""),  # never asks
        ((b"GET /hea",), b"408"),  # half a line
        ((HEAD,), b"408"),  # half the headers
        ((HEAD, *(b"X-%d: 1\r\n" % n for n in range(60))), b"408"),  # headers without an end
        ((HEAD + b"\r\n" + b'{"jobs"',), b"408"),  # half a body
    ],
)
def test_who_begins_and_does_not_go_on_is_let_go(address, pieces, status):
    said, took_sec = sent(address, *pieces, pause_sec=0.05)
    assert said[9:12] == status
    assert 1.4 < took_sec < 15


def test_a_body_that_trickles_in_is_taken(address):
    body = b'{"spec_version": "2.0", "jobs": []}     '
    assert len(body) == 40
    pieces = [HEAD + b"Connection: close\r\n\r\n", *(body[n : n + 10] for n in range(0, 40, 10))]
    said, took_sec = sent(address, *pieces, pause_sec=0.5)
    assert said[9:12] == b"422"
    assert took_sec > 1.5


def test_a_second_request_on_a_connection_has_its_own_time(address):
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    said, _ = sent(address, whole, whole, whole, b"GET /", pause_sec=0.6)
    assert said.count(b"HTTP/1.1 503") == 3  # nobody ticks here
    assert said.count(b"HTTP/1.1 408") == 1
