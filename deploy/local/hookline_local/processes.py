"""Starts processes that outlive this one, identifies them in later runs, and stops them.

A process is identified by its id and start time, because the system reuses ids.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Callable, Dict, List, NamedTuple, Optional

KILLED_WITHIN_S = 5.0

# Started by this process, which must reap them.
_children: Dict[int, "subprocess.Popen[bytes]"] = {}


class Process(NamedTuple):
    """An entry of the state file."""

    name: str
    pid: int
    born: str
    log: str


def spawn(name: str, command: List[str], env: Dict[str, str], log: pathlib.Path, dies_with_us: bool = False) -> Process:
    """Starts a process in a session of its own, so that Ctrl-C in the terminal does not reach it."""
    with open(log, "ab") as output:
        child = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent() if dies_with_us else None,
        )
    _children[child.pid] = child
    return Process(name, child.pid, _born(child.pid) or "", str(log))


def alive(process: Process) -> bool:
    """Whether the process is running, and its id does not belong to another one."""
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        return False
    return bool(process.born) and _born(process.pid) == process.born


def how_it_ended(process: Process) -> str:
    """A phrase for error messages."""
    child = _children.get(process.pid)
    code = child.poll() if child is not None else None
    if code is None:
        return "is gone"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with code {code}"


def end(running: List[Process], patience_s: float) -> List[Process]:
    """Sends SIGTERM, then SIGKILL to processes still alive after `patience_s`, and returns those."""
    remaining = _signal(running, signal.SIGTERM)
    remaining = _gone(remaining, patience_s)
    killed = _signal(remaining, signal.SIGKILL)
    _gone(killed, KILLED_WITHIN_S)
    return killed


def _signal(targets: List[Process], number: signal.Signals) -> List[Process]:
    """Signals processes that are alive, and returns those."""
    reached = []
    for process in targets:
        if alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue
            reached.append(process)
    return reached


def _gone(targets: List[Process], patience_s: float) -> List[Process]:
    """Waits for processes to end, and returns those that did not."""
    until = time.monotonic() + patience_s
    remaining = [process for process in targets if alive(process)]
    while remaining and time.monotonic() < until:
        time.sleep(0.02)
        remaining = [process for process in remaining if alive(process)]
    return remaining


def _born(pid: int) -> Optional[str]:
    """The start time of a process; None if it does not exist or is a zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None if sys.platform.startswith("linux") else _born_by_ps(pid)
    # The second field is the program's name in brackets, which may contain spaces and brackets.
    fields = stat[stat.rindex(")") + 2 :].split()
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{ticks}"


def _born_by_ps(pid: int) -> Optional[str]:
    """For systems without /proc."""
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        env={**os.environ, "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    state, _, born = answer.stdout.decode("ascii", "replace").strip().partition(" ")
    return born.strip() if born and not state.startswith("Z") else None


def _end_with_parent() -> Optional[Callable[[], None]]:
    """On Linux, a child can get a signal when its parent dies, even by SIGKILL."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    parent_death_signal = 1

    def request_signal() -> None:
        prctl(parent_death_signal, int(signal.SIGTERM), 0, 0, 0)

    return request_signal
