"""make up: starts a local cluster in the background. make observe: adds Prometheus. make down: stops them."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import shlex
from typing import Iterator, List, Optional

from . import cluster, interrupt, nats, paths, ports, servers, terminal
from .cluster import DISPATCHERS, NAMES, PROMETHEUS, Cluster

FOLDER = paths.RUN / "up"
TAIL = 15


def up(binaries: pathlib.Path) -> int:
    """Starts the processes that are not running, and shows how to use the cluster."""
    with alone(), interrupt.raised():
        here = running_cluster(binaries)
        running = here.alive()
        missing = [name for name in NAMES if name not in running]
        if not missing:
            terminal.say("Hookline is already up.")
            _observe_if_on_path(here)
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
        _observe_if_on_path(here)
        _explain(here)
        return 0


def observe() -> int:
    """Starts Prometheus beside the running cluster, and fetches it before."""
    with alone(), interrupt.raised():
        here = running_cluster(pathlib.Path())
        running = here.alive()
        if any(name not in running for name in NAMES):
            terminal.bad("Hookline is not up; run `make up` first")
            return 1
        if PROMETHEUS in running:
            terminal.say("Prometheus is already running.")
        else:
            try:
                servers.fetch([PROMETHEUS])
            except servers.Failure as failure:
                terminal.bad(str(failure))
                return 1
            if not _start_prometheus(here, paths.PROMETHEUS):
                return 1
        _explain_prometheus(here)
        return 0


def down() -> int:
    """Stops the processes that `up` started, and no others."""
    with alone():
        here = running_cluster(pathlib.Path())
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
    port = running_cluster(pathlib.Path()).ports.get("nats", cluster.USUAL_PORTS["nats"])
    try:
        nats.publish((ports.LOOPBACK, port), subject, body.encode())
    except (OSError, nats.Refused) as error:
        terminal.bad(f"cannot publish to NATS on {ports.LOOPBACK}:{port}: {error}")
        if isinstance(error, ConnectionRefusedError):
            terminal.say("`make up` starts the cluster.")
        return 1
    terminal.say(f"published {len(body.encode())} bytes to {subject}")
    return 0


def running_cluster(binaries: Optional[pathlib.Path]) -> Cluster:
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


def _observe_if_on_path(here: Cluster) -> None:
    """The cluster is up even if Prometheus does not start."""
    if PROMETHEUS in here.alive():
        return
    binary = servers.on_path(PROMETHEUS)
    if binary is not None:
        _start_prometheus(here, binary)


def _start_prometheus(here: Cluster, binary: pathlib.Path) -> bool:
    terminal.say("starting prometheus ...")
    try:
        here.start_prometheus(binary)
    except (cluster.Failure, interrupt.Interrupted) as failure:
        with interrupt.ignored():
            here.stop_prometheus()
        if isinstance(failure, interrupt.Interrupted):
            raise
        terminal.bad(str(failure))
        terminal.log_tail(PROMETHEUS, here.log(PROMETHEUS), TAIL)
        return False
    return True


def _give_up(here: Cluster) -> None:
    with interrupt.ignored():
        here.stop()
    terminal.say("Hookline is not up. All of its processes are stopped.")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Lets one command that starts or stops something run at a time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(paths.RUN / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _explain(here: Cluster) -> None:
    say, bold = terminal.say, terminal.bold
    logs = paths.shown(FOLDER / "logs")
    say()
    say(f"  Admin API    {bold(here.url('admin'))}")
    say(f"  ingest       {here.url('ingest')}   (POST /events/SOURCE/EVENT, with a token: docs/ingest.md)")
    say(f"  receiver     {bold(here.url('receiver'))}   (shows the requests of hooks)")
    say(f"  NATS         {here.url('nats')}")
    say(f"  Redis        {here.url('redis')}")
    for name in ("gateway", *here.dispatchers()):
        say(f"  {name:12} {here.url(name)}/metrics   also /healthz, /readyz")
    if PROMETHEUS in here.alive():
        say(f"  Prometheus   {here.url(PROMETHEUS)}")
    else:
        say("  Prometheus   `make observe` adds it")
    say(f"  logs         {logs}/")
    say()
    say(bold("Try"))
    for remark, text in _commands(here, logs):
        say(f"  # {remark}")
        for line in text.splitlines():
            say(f"  {line}")
    say()
    say("`make down` stops it.")


def _explain_prometheus(here: Cluster) -> None:
    say, bold = terminal.say, terminal.bold
    prometheus = here.url(PROMETHEUS)
    say()
    say(f"  Prometheus   {bold(prometheus)}")
    if not cluster.answers_ok(f"{prometheus}/graph"):
        say("               This build has no pages, only the API. Grafana can read it.")
    say()
    say(bold("Try"))
    say("  # what is scraped, and which alerts fire")
    say(f"  curl {prometheus}/api/v1/targets")
    say(f"  curl {prometheus}/api/v1/alerts")
    say("  # events a second")
    say(f"  curl -G {prometheus}/api/v1/query --data-urlencode 'query=sum(outcome:hookline_events:rate5m)'")
    say()
    say("docs/runbooks.md explains the alerts. `make down` stops it with the cluster.")


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
        ["let four dispatchers share the work", "deploy/local/hookline-local scale 4"],
        [
            "run another dispatcher by hand (Ctrl-C stops it)",
            f"{settings} \\\n    {paths.shown(here.binaries)}/hookline-dispatcher",
        ],
    ]
