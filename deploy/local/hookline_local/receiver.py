"""An HTTP server that records requests: a destination for hooks.

any method, any path     records the request and answers 200
any method, /status/503  records the request and answers 503, to see retries
GET /                    shows the last requests as text
GET /requests            returns the last requests as JSON
"""

from __future__ import annotations

import argparse
import collections
import datetime
import http.server
import json
import re
import signal
import socketserver
import sys
import threading
import time
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple

from . import ports

KEPT = 200
LARGEST_BODY = 4 * 1024 * 1024
SHOWN_BODY = 64 * 1024
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Request(NamedTuple):
    number: int
    at: float  # seconds since the epoch
    method: str
    path: str
    headers: List[Tuple[str, str]]
    body: bytes

    def json(self) -> Optional[Any]:
        """The decoded body, if it is JSON."""
        try:
            return json.loads(self.body.decode("utf-8"))
        except ValueError:
            return None

    def text(self) -> str:
        when = datetime.datetime.fromtimestamp(self.at).strftime("%H:%M:%S.%f")[:-3]
        head = [f"#{self.number}  {when}  {self.method} {self.path}"]
        head += [f"{name}: {value}" for name, value in self.headers]
        return "\n".join([*head, "", self.body_text()])

    def body_text(self) -> str:
        """Indented if it is JSON."""
        value = self.json()
        if isinstance(value, (dict, list)):
            return json.dumps(value, indent=2, ensure_ascii=False)[:SHOWN_BODY]
        return self.body[:SHOWN_BODY].decode("utf-8", "replace")

    def as_dict(self) -> Dict[str, Any]:
        """For GET /requests."""
        return {
            "number": self.number,
            "at": self.at,
            "method": self.method,
            "path": self.path,
            "headers": dict(self.headers),
            "body": self.body[:SHOWN_BODY].decode("utf-8", "replace"),
        }


class Receiver(http.server.ThreadingHTTPServer):
    """The server, which keeps the last requests in memory."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, echo: bool = False, host: str = ports.LOOPBACK) -> None:
        super().__init__((host, port), Handler)
        self.echo = echo
        self.count = 0
        self.kept: Deque[Request] = collections.deque(maxlen=KEPT)
        self.lock = threading.Lock()

    def server_bind(self) -> None:
        """Skips the library's name look-up, which would wait for a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def record(self, method: str, path: str, headers: List[Tuple[str, str]], body: bytes) -> None:
        """Keeps a request and drops the oldest."""
        with self.lock:
            self.count += 1
            request = Request(self.count, time.time(), method, path, headers, body)
            self.kept.append(request)
        if self.echo:
            print(request.text(), end="\n\n", flush=True)

    def requests(self) -> List[Request]:
        """The last requests, oldest first."""
        with self.lock:
            return list(self.kept)

    def serve_in_background(self) -> None:
        """Serves in a thread that ends with the program."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that disconnect."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """Handles a connection."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Receiver

    def answer(self) -> None:
        """Handles every method."""
        body = self.read_body()
        if body is None:
            return
        if self.command in ("GET", "HEAD") and self.path in ("/", "/requests"):
            self.show()
            return
        self.server.record(self.command, self.path, list(self.headers.items()), body)
        asked = re.match(r"/status/([2-5]\d\d)\b", self.path)
        self.reply(int(asked.group(1)) if asked else 200, "text/plain", b"ok\n")

    def read_body(self) -> Optional[bytes]:
        """Returns None if it refused the request."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdigit():
            self.refuse(411)
        elif int(length) > LARGEST_BODY:
            self.refuse(413)
        else:
            return self.rfile.read(int(length))
        return None

    def refuse(self, status: int) -> None:
        """Closes the connection, since the body is not read."""
        self.close_connection = True
        self.reply(status, "text/plain", b"")

    def show(self) -> None:
        requests = self.server.requests()
        if self.path == "/requests":
            listed = json.dumps([request.as_dict() for request in requests], indent=2)
            self.reply(200, "application/json", listed.encode() + b"\n")
            return
        total = f"{self.server.count} requests so far, the last {min(20, len(requests))} of them:\n\n"
        shown = total + "\n\n".join(request.text() for request in reversed(requests[-20:]))
        self.reply(200, "text/plain; charset=utf-8", shown.encode() + b"\n")

    def reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
        """Disabled: the record serves as the log."""


for _method in METHODS:
    setattr(Handler, f"do_{_method}", Handler.answer)


def main(arguments: List[str]) -> int:
    """Serves until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="hookline-local receiver", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, metavar="PORT", default=8080, help="default: 8080")
    parser.add_argument("--host", metavar="ADDRESS", default=ports.LOOPBACK, help=f"default: {ports.LOOPBACK}")
    options = parser.parse_args(arguments)
    try:
        server = Receiver(options.port, echo=True, host=options.host)
    except (OSError, OverflowError) as error:
        print(f"hookline-local: cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"receiver listening on http://{options.host}:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    return 0
