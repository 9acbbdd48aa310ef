"""Which ports a cluster listens on: the usual ones, or free ones where those are taken."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import random
import socket
import tempfile
from typing import Dict, Iterable, Iterator, Set

LOOPBACK = "127.0.0.1"

# Below the range from which Linux takes ports for outgoing connections, so that a port stays free
# between the choice and the server's start.
FREE_RANGE = range(20000, 30000)


@contextlib.contextmanager
def reserved() -> Iterator[None]:
    """Held from the choice of ports until they are listened on: of two clusters that start at the
    same time, the second one waits, and finds taken what the first one chose."""
    path = pathlib.Path(tempfile.gettempdir()) / f"hookline-ports-{os.getuid()}.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        # Somebody else's file: rather a small risk than no cluster.
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are only just closed counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def choose(wanted: Dict[str, int]) -> Dict[str, int]:
    """For each name its wanted port, or a free one. None twice."""
    chosen: Dict[str, int] = {}
    used: Set[int] = set(wanted.values())
    for name, port in wanted.items():
        if not is_free(port):
            port = any_free(used)
            used.add(port)
        chosen[name] = port
    return chosen


def any_free(used: Iterable[int]) -> int:
    """A free port that is none of those."""
    candidates = [port for port in FREE_RANGE if port not in set(used)]
    random.shuffle(candidates)
    for port in candidates:
        if is_free(port):
            return port
    raise OSError(f"no free port from {FREE_RANGE.start} to {FREE_RANGE.stop - 1}")
