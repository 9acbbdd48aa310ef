"""Chooses the ports of a cluster: the default ones, or free ones if those are taken."""

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

# Below Linux's range for outgoing connections, so that a port stays free until the server binds it.
FREE_RANGE = range(20000, 30000)


@contextlib.contextmanager
def reserved() -> Iterator[None]:
    """Held from the choice of ports until servers listen on them, so that clusters that start at the same
    time do not choose the same ports."""
    path = pathlib.Path(tempfile.gettempdir()) / f"hookline-ports-{os.getuid()}.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        # The file belongs to another user. A small risk of a clash is better than no cluster.
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_free(port: int) -> bool:
    """Whether a server could bind the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this as well: a port with connections in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def choose(wanted: Dict[str, int]) -> Dict[str, int]:
    """Maps each name to its wanted port, or to a free one if that is taken."""
    chosen: Dict[str, int] = {}
    used: Set[int] = set(wanted.values())
    for name, port in wanted.items():
        if not is_free(port):
            port = any_free(used)
            used.add(port)
        chosen[name] = port
    return chosen


def any_free(used: Iterable[int]) -> int:
    """A free port that is not in `used`."""
    candidates = [port for port in FREE_RANGE if port not in set(used)]
    random.shuffle(candidates)
    for port in candidates:
        if is_free(port):
            return port
    raise OSError(f"no free port from {FREE_RANGE.start} to {FREE_RANGE.stop - 1}")
