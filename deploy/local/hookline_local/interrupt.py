"""Ctrl-C, SIGTERM and SIGHUP: raise an exception during work, and are ignored during cleanup."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType
from typing import Iterator, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asks the program to stop. Not an Exception, so that no error handler swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        # The convention of shells.
        self.exit_code = 128 + number


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """The first signal raises Interrupted and further ones are ignored, so clean up inside the block."""

    def stop(number: int, _frame: Optional[FrameType]) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = [signal.signal(number, stop) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before):
            signal.signal(number, handler)


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Ignores signals, so that stopping processes is not interrupted halfway."""
    before = [signal.signal(number, signal.SIG_IGN) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before):
            signal.signal(number, handler)
