"""A minimal NATS client that publishes a message, without TLS or headers."""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, Tuple

HELLO = {"verbose": False, "pedantic": False, "lang": "python", "version": "0", "name": "hookline-local", "protocol": 1}


class Refused(Exception):
    """The server refused the message."""


def publish(address: Tuple[str, int], subject: str, body: bytes, timeout_s: float = 5.0) -> None:
    """Publishes a message and returns once the server has read it."""
    if not subject or any(character.isspace() for character in subject):
        raise Refused(f"invalid subject: {subject!r}")
    with socket.create_connection(address, timeout_s) as wire, wire.makefile("rb") as lines:
        _info(lines)
        wire.sendall(b"CONNECT %s\r\n" % json.dumps(HELLO).encode())
        wire.sendall(b"PUB %s %d\r\n%s\r\nPING\r\n" % (subject.encode(), len(body), body))
        _until_pong(lines)


def is_ready(address: Tuple[str, int], timeout_s: float = 1.0) -> bool:
    """Whether a server with JetStream answers."""
    try:
        with socket.create_connection(address, timeout_s) as wire, wire.makefile("rb") as lines:
            info = _info(lines)
            wire.sendall(b"CONNECT %s\r\nPING\r\n" % json.dumps(HELLO).encode())
            _until_pong(lines)
            return bool(info.get("jetstream"))
    except (OSError, ValueError, Refused):
        return False


def _info(lines: Any) -> Dict[str, Any]:
    """Reads the server's greeting."""
    verb, _, rest = lines.readline().partition(b" ")
    if verb != b"INFO":
        raise Refused("not a NATS server")
    info: Dict[str, Any] = json.loads(rest)
    return info


def _until_pong(lines: Any) -> None:
    """Answers are in order: at its PONG the server has read everything before the PING."""
    for line in lines:
        if line.startswith(b"PONG"):
            return
        if line.startswith(b"-ERR"):
            raise Refused(line.decode("utf-8", "replace").strip())
    raise Refused("the server closed the connection")
