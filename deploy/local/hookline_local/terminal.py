"""What the tools print. Colour only where a person looks at it."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import List

WIDTH = 96
LONGEST_LOG_LINE = 400


def prepare() -> None:
    """Each line at once, also into a pipe; no crash where the terminal cannot show a character."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]


def say(text: str = "") -> None:
    """What is being done. Whoever reads this may go away; the work goes on, and above all its end."""
    try:
        print(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if _colours() else text


def bold(text: str) -> str:
    """For what stands out."""
    return _paint("1", text)


def title(text: str) -> None:
    """A step begins."""
    say()
    say(bold(f"== {text} " + "=" * max(0, WIDTH - len(text) - 4)))


def command(text: str) -> None:
    """A command, as a person would type it."""
    first, *rest = text.splitlines()
    say(_paint("36", f"$ {first}"))
    for line in rest:
        say(_paint("36", f"  {line}"))


def came_back(text: str) -> None:
    """What something answered, set in."""
    for line in text.splitlines():
        say(_paint("2", "    | ") + line)


def good(text: str) -> None:
    """It is as it should be."""
    say(_paint("32", f"ok   {text}"))


def bad(text: str) -> None:
    """It is not."""
    say(_paint("31", f"FAIL {text}"))


def log_tail(name: str, log: pathlib.Path, lines: int) -> None:
    """The last lines of a log."""
    say(bold(f"-- {name}: last lines of {log}"))
    for line in last_lines(log, lines) or ["(empty)"]:
        say(f"    {line[:LONGEST_LOG_LINE]}")


def last_lines(log: pathlib.Path, count: int) -> List[str]:
    """From the end of the file, however long it is."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
