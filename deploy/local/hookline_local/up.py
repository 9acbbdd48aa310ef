"""make up: starts a local cluster in the background. make down: stops it."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import shlex
from typing import Iterator, List

from . import cluster, interrupt, nats, paths, ports, terminal
from .cluster import DISPATCHERS, NAMES, Cluster

FOLDER = paths.RUN / "up"
TAIL = 15


def up(binaries: pathlib.Path) -> int:
    """Starts the processes that are not running, and shows how to use the cluster."""
    with _alone(), interrupt.raised():
        here = _cluster(binaries)
        running = here.alive()
        missing = [name for name in NAMES if name not in running]
        if not missing:
            terminal.say("Hookline is already up.")
            _explain(here)
            return 0
        try:
            _start(here, running, missing)
        except cluster.Failure as failure:
            terminal.bad(str(failure))
            for name in missing:
                if name in here.processes:
                    terminal.log_tail(name, here.log(name), TAIL)
            _give_up(here)
            return 1
        except interrupt.Interrupted as stopped:
            terminal.bad(str(stopped))
            _give_up(here)
            return stopped.exit_code
        terminal.say("Hookline is up.")
        _explain(here)
        return 0


def down() -> int:
    """Stops the processes that `up` started, and no others."""
    with _alone():
        here = _cluster(pathlib.Path())
        running = here.alive()
        if not running:
            terminal.say("Hookline is not up.")
            return 0
        terminal.say(f"stopping {', '.join(running)} ...")
        with interrupt.ignored():
            killed = here.stop()
        if killed:
            terminal.say(f"killed after a timeout: {', '.join(killed)} (logs in {paths.shown(FOLDER / 'logs')})")
        left = here.alive()
        if left:
            terminal.bad(f"still running: {', '.join(left)}")
            return 1
        terminal.say(f"Hookline is down. The next `make up` continues with its data in {paths.shown(FOLDER)}.")
        return 0


def publish(subject: str, body: str) -> int:
    """Publishes an event, for users without the NATS CLI."""
    port = _cluster(pathlib.Path()).ports.get("nats", cluster.USUAL_PORTS["nats"])
    try:
        nats.publish((ports.LOOPBACK, port), subject, body.encode())
    except (OSError, nats.Refused) as error:
        terminal.bad(f"cannot publish to NATS on {ports.LOOPBACK}:{port}: {error}")
        if isinstance(error, ConnectionRefusedError):
            terminal.say("`make up` starts the cluster.")
        return 1
    terminal.say(f"published {len(body.encode())} bytes to {subject}")
    return 0


def _cluster(binaries: pathlib.Path) -> Cluster:
    return Cluster(FOLDER, binaries, cluster.environment(keep_settings=True), temporary=False)


def _start(here: Cluster, running: List[str], missing: List[str]) -> None:
    if not running:
        with ports.reserved():
            for name, port in here.choose_ports().items():
                terminal.say(f"{name}: port {cluster.USUAL_PORTS[name]} is taken, using {port}")
            terminal.say(f"starting {', '.join(missing)} ...")
            here.start(missing)
        return
    terminal.say(f"already running: {', '.join(running)}; starting {', '.join(missing)} ...")
    here.start(missing)


def _give_up(here: Cluster) -> None:
    with interrupt.ignored():
        here.stop()
    terminal.say("Hookline is not up. All of its processes are stopped.")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Lets one `up` or `down` run at a time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(paths.RUN / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _explain(here: Cluster) -> None:
    say, bold = terminal.say, terminal.bold
    logs = paths.shown(FOLDER / "logs")
    say()
    say(f"  Admin API    {bold(here.url('admin'))}")
    say(f"  receiver     {bold(here.url('receiver'))}   (shows the requests of hooks)")
    say(f"  NATS         {here.url('nats')}")
    say(f"  Redis        {here.url('redis')}")
    for name in ("gateway", *DISPATCHERS):
        say(f"  {name:12} {here.url(name)}/metrics   also /healthz, /readyz")
    say(f"  logs         {logs}/")
    say()
    say(bold("Try"))
    for remark, text in _commands(here, logs):
        say(f"  # {remark}")
        for line in text.splitlines():
            say(f"  {line}")
    say()
    say("`make down` stops it.")


def _commands(here: Cluster, logs: str) -> List[List[str]]:
    admin = here.url("admin")
    event = '{"operation":"create","schema":"consumers","entity":{"username":"Grace Hopper"}}'
    subject = "hookline.events.default.crud.consumers"
    another = ports.any_free(here.ports.values())
    settings = " \\\n    ".join(
        f"{key}={shlex.quote(value)}" for key, value in here.dispatcher_settings(another).items()
    )
    return [
        [
            "create a hook that posts every change of a consumer to the receiver",
            f"curl -i -X POST {admin}/event-hooks -d source=crud -d event=consumers -d handler=webhook \\\n"
            f"    -d config.url={here.url('receiver', '/webhook')}",
        ],
        ["create a consumer", f'curl -i -X POST {admin}/consumers -d username="Ada Lovelace"'],
        ["show what the receiver got", f"curl {here.url('receiver', '/')}"],
        ["publish an event with the NATS CLI", f"nats -s {here.url('nats')} pub {subject} '{event}'"],
        ["the same without the NATS CLI", f"deploy/local/hookline-local pub {subject} '{event}'"],
        ["follow the logs: records of `log` hooks, errors of scripts", f"tail -f {logs}/dispatcher-*.log"],
        [
            "run another dispatcher that shares the work (Ctrl-C stops it)",
            f"{settings} \\\n    {paths.shown(here.binaries)}/hookline-dispatcher",
        ],
    ]
