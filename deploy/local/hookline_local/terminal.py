"""Prints progress and results, with colours on a terminal."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import List

WIDTH = 96
LONGEST_LOG_LINE = 400


def prepare() -> None:
    """Flushes every line even into a pipe, and replaces characters that the terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]


def say(text: str = "") -> None:
    """Prints a line. If the reader of a pipe is gone, the work continues, above all the cleanup."""
    try:
        print(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if _colours() else text


def bold(text: str) -> str:
    return _paint("1", text)


def title(text: str) -> None:
    """Starts a step."""
    say()
    say(bold(f"== {text} " + "=" * max(0, WIDTH - len(text) - 4)))


def command(text: str) -> None:
    """Shows a command as a user would type it."""
    first, *rest = text.splitlines()
    say(_paint("36", f"$ {first}"))
    for line in rest:
        say(_paint("36", f"  {line}"))


def output(text: str) -> None:
    """Shows output, indented."""
    for line in text.splitlines():
        say(_paint("2", "    | ") + line)


def good(text: str) -> None:
    """Reports success."""
    say(_paint("32", f"ok   {text}"))


def bad(text: str) -> None:
    """Reports a failure."""
    say(_paint("31", f"FAIL {text}"))


def log_tail(name: str, log: pathlib.Path, lines: int) -> None:
    """Shows the last lines of a log."""
    say(bold(f"-- {name}: last lines of {log}"))
    for line in last_lines(log, lines) or ["(empty)"]:
        say(f"    {line[:LONGEST_LOG_LINE]}")


def last_lines(log: pathlib.Path, count: int) -> List[str]:
    """Reads only the end of the file, however large it is."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
