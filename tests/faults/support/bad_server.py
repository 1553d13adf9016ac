"""A server on this machine that misbehaves as the path says: /<behaviour>/<anything>."""

import gzip
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

HTML = {"Content-Type": "text/html; charset=utf-8"}
# Where a try sends the client on to, as text of the header.
REDIRECTS = {
    "redirect-good": "/good/x",
    "redirect-loop": "/redirect-loop/x",
    "redirect-file": "file:///etc/passwd",
    "redirect-ftp": "ftp://127.0.0.1:1/x",
    "redirect-bad": "http://[bad/",
    "redirect-port": "http://127.0.0.1:port/",
}
# What comes instead of HTTP.
RAW = {
    "garbage": b"\x00\xff\x00 not http\r\n\r\n",
    "long-header": b"HTTP/1.0 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "many-headers": b"HTTP/1.0 200 OK\r\n" + b"X: a\r\n" * 500 + b"\r\n",
    "chunked-bad": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc",
}
STALL_S, ENDLESS_S = 4.0, 20.0
# Behaviours after which trying again ends well.
HEALS = (
    "good", "slow", "no-range", "reset-once", "short-once", "short-declared-once", "flipped-once",
    "json-error-once", "redirect-good",
)  # fmt: skip
OTHERS = (
    "reset-at-once", "stall", "html", "html-as-bytes", "longer", "endless", "206-wrong-range",
    "206-unasked", "206-from-zero", "416", "404", "503", "empty", "negative", "gzip",
    *(name for name in REDIRECTS if name != "redirect-good"), *RAW,
)  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Serve ``data`` as the path says; ``asked`` counts the requests of each path."""

    data = b""
    asked: ClassVar[Counter[str]] = Counter()

    def log_message(self, *_) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        how = self.path.split("/")[1]
        self.asked[how] += 1
        first = self.asked[how] == 1
        begun = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        try:
            self.answer(how.removesuffix("-once"), begun, first or not how.endswith("-once"))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, how: str, begun: int, bad: bool) -> None:
        data = self.data
        if not bad or how == "good":
            self.part(begun)
        elif how in REDIRECTS:
            self.send(b"", 302, Location=REDIRECTS[how])
        elif how in RAW:
            self.wfile.write(RAW[how])
        elif how.isdigit():
            self.send(b"no", int(how)) if begun or how != "416" else self.part(0)
        elif how.startswith("206"):
            self.send_wrong_part(how, begun)
        elif how in ("slow", "stall", "endless", "reset", "reset-at-once", "short"):
            self.send_slowly(how, begun)
        else:
            bodies = {
                "no-range": (data, {}),
                "short-declared": (data[:70_000], {}),
                "flipped": (data[:500] + bytes([data[500] ^ 1]) + data[501:], {}),
                "json-error": (b'{"error": "quota"}', {"Content-Type": "application/json"}),
                "html": (b"<html>log in</html>", HTML),
                "html-as-bytes": (b"<!DOCTYPE html><html>log in</html>" * 3, {}),
                "longer": (data + b"x" * 100_000, {}),
                "empty": (b"", {}),
                "negative": (data, {"Content-Length": "-5"}),
                "gzip": (gzip.compress(data), {"Content-Encoding": "gzip"}),
            }
            body, headers = bodies[how]
            self.send(body, 200, **headers)

    def part(self, begun: int) -> None:
        size = len(self.data)
        headers = {"Content-Range": f"bytes {begun}-{size - 1}/{size}"} if begun else {}
        self.send(self.data[begun:], 206 if begun else 200, **headers)

    def send_wrong_part(self, how: str, begun: int) -> None:
        size = len(self.data)
        if how == "206-wrong-range" and begun:
            body = self.data[begun + 7 :] + b"1234567"
            range_sent = f"bytes {begun + 7}-{size - 1}/{size}"
            self.send(body, 206, **{"Content-Range": range_sent})
        else:
            self.send(self.data, 206, **{"Content-Range": f"bytes 0-{size - 1}/{size}"})

    def send_slowly(self, how: str, begun: int) -> None:
        if how == "reset-at-once":
            return self.reset()
        self.send_response(206 if begun else 200)
        if how != "endless":
            self.send_header("Content-Length", str(len(self.data) - begun))
        self.end_headers()
        end = time.monotonic() + ENDLESS_S
        while how == "endless" and time.monotonic() < end:
            self.wfile.write(bytes(1 << 16))
        whole = how == "slow"
        for at in range(begun, len(self.data) if whole else begun + 100_000, 20_000):
            self.wfile.write(self.data[at : at + 20_000])
            self.wfile.flush()
            time.sleep(0.02)
        if how == "stall":
            time.sleep(STALL_S)
        if how == "reset":
            self.reset()
        return None

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def send(self, body: bytes, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """A server that does not print what goes wrong: all of it is meant."""

    daemon_threads = True

    def handle_error(self, *_) -> None:
        """Print nothing."""


def serve(data: bytes) -> str:
    """Start a server in a thread; return its address."""
    Handler.data = data
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
