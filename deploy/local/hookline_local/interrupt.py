"""Ctrl-C, SIGTERM and SIGHUP: an exception while there is work to undo, nothing while it is undone."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType
from typing import Iterator, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants this to end. Not an Exception, so that no handler of errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        # As shells report it.
        self.exit_code = 128 + number


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within, the first signal raises Interrupted, and further ones do nothing: clean up within, too."""

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
    """Within, a signal does nothing: what is being stopped would be left running."""
    before = [signal.signal(number, signal.SIG_IGN) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before):
            signal.signal(number, handler)
