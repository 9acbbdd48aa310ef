"""NATS, Redis, a gateway, dispatchers and a receiver on the loopback interface.

<folder>/state.json   ports and processes, so that another run finds them again
<folder>/data/        what NATS and Redis keep
<folder>/logs/        a file for each process, and the one of the start before
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import sys
import time
import urllib.request
from typing import Callable, Dict, List, NamedTuple, Optional

from . import nats, paths, ports, processes
from .ports import LOOPBACK

DISPATCHERS = ("dispatcher-1", "dispatcher-2")
USUAL_PORTS = {
    "nats": 4222,
    "redis": 6379,
    "admin": 8001,
    "gateway": 8100,
    "dispatcher-1": 9100,
    "dispatcher-2": 9101,
    "receiver": 8080,
}
READY_WITHIN_S = 60.0
# Services drain what is in flight when they are told to stop.
SERVICES_END_WITHIN_S = 40.0
SERVERS_END_WITHIN_S = 10.0
# What holds unless the environment says otherwise.
DEFAULTS = {
    # Without it a dispatcher delivers to public addresses only, and the receiver is on loopback.
    "HOOKLINE_EGRESS_ALLOW": "127.0.0.0/8,::1/128",
    # Set aside when the stream is created: a small disk has no 4 GiB to spare.
    "HOOKLINE_EVENTS_MAX_BYTES": str(256 * 1024 * 1024),
}


class Failure(Exception):
    """The cluster did not come up."""


class Service(NamedTuple):
    """How one process is started, and how it shows that it is ready."""

    name: str
    command: List[str]
    env: Dict[str, str]
    ready: Callable[[], bool]


class Cluster:
    """A cluster in a folder of its own."""

    def __init__(self, folder: pathlib.Path, binaries: pathlib.Path, env: Dict[str, str], temporary: bool) -> None:
        self.folder = folder
        self.binaries = binaries
        self.env = env
        # A temporary cluster ends with the process that started it, however that ends.
        self.temporary = temporary
        self.ports: Dict[str, int] = {}
        self.processes: Dict[str, processes.Process] = {}
        self._load()

    # -- what a user needs to know

    def url(self, name: str, path: str = "") -> str:
        """Of whatever listens on that port."""
        return f"{SCHEMES.get(name, 'http')}://{LOOPBACK}:{self.ports[name]}{path}"

    def log(self, name: str) -> pathlib.Path:
        """The file that the process writes to."""
        return self.folder / "logs" / f"{name}.log"

    def alive(self) -> List[str]:
        """The names of those that run."""
        return [name for name, process in self.processes.items() if processes.alive(process)]

    def dispatcher_settings(self, status_port: int) -> Dict[str, str]:
        """What makes a dispatcher one of this cluster."""
        return {
            "HOOKLINE_STATUS_LISTEN": f"{LOOPBACK}:{status_port}",
            "HOOKLINE_NATS_URL": self.url("nats"),
            "HOOKLINE_REDIS_URL": self.url("redis"),
            **{name: self.env.get(name, default) for name, default in DEFAULTS.items()},
        }

    # -- life

    def choose_ports(self) -> Dict[str, int]:
        """The usual ones, or free ones where those are taken. Returns the moved ones."""
        self.ports = ports.choose(USUAL_PORTS)
        return {name: port for name, port in self.ports.items() if port != USUAL_PORTS[name]}

    def start(self, names: List[str]) -> None:
        """Start these, in an order in which each finds what it needs, and wait until all are ready."""
        self._check_programs()
        for sub in ("data/nats", "data/redis", "logs"):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        services = [service for service in self._services() if service.name in names]
        servers = [service for service in services if service.name in ("nats", "redis")]
        for group in (servers, [service for service in services if service not in servers]):
            for service in group:
                self._spawn(service)
            until = time.monotonic() + READY_WITHIN_S
            for service in group:
                self._wait_until_ready(service, until)

    def stop(self) -> List[str]:
        """End what was started, the servers last. Returns the names of those that had to be killed."""
        running = [self.processes[name] for name in self.alive()]
        servers = [process for process in running if process.name in ("nats", "redis")]
        killed = processes.end([process for process in running if process not in servers], SERVICES_END_WITHIN_S)
        killed += processes.end(servers, SERVERS_END_WITHIN_S)
        self.processes = {name: self.processes[name] for name in self.alive()}
        self._save()
        return [process.name for process in killed]

    def _services(self) -> List[Service]:
        plain = {key: value for key, value in self.env.items() if not key.startswith("HOOKLINE_")}
        data = self.folder / "data"
        tool = [sys.executable, str(paths.LOCAL / "hookline-local")]
        services = [
            Service(
                "nats",
                [str(paths.NATS_SERVER), "-c", str(paths.NATS_CONF), "-a", LOOPBACK]
                + ["-p", str(self.ports["nats"]), "-sd", str(data / "nats")],
                plain,
                lambda: nats.is_ready((LOOPBACK, self.ports["nats"])),
            ),
            Service(
                "redis",
                [str(paths.REDIS_SERVER), str(paths.VALKEY_CONF), "--bind", LOOPBACK]
                + ["--port", str(self.ports["redis"]), "--dir", str(data / "redis")],
                plain,
                lambda: redis_is_ready(self.ports["redis"]),
            ),
            Service(
                "receiver",
                [*tool, "receiver", "--port", str(self.ports["receiver"])],
                plain,
                lambda: answers_ok(self.url("receiver", "/requests")),
            ),
            Service(
                "gateway",
                [str(self.binaries / "hookline-gateway")],
                {
                    **DEFAULTS,
                    **self.env,
                    "HOOKLINE_ADMIN_LISTEN": f"{LOOPBACK}:{self.ports['admin']}",
                    "HOOKLINE_STATUS_LISTEN": f"{LOOPBACK}:{self.ports['gateway']}",
                    "HOOKLINE_NATS_URL": self.url("nats"),
                },
                lambda: answers_ok(self.url("gateway", "/readyz")),
            ),
        ]
        return services + [self._dispatcher(name) for name in DISPATCHERS]

    def _dispatcher(self, name: str) -> Service:
        return Service(
            name,
            [str(self.binaries / "hookline-dispatcher")],
            {**self.env, **self.dispatcher_settings(self.ports[name])},
            lambda: answers_ok(self.url(name, "/readyz")),
        )

    def _check_programs(self) -> None:
        services = [self.binaries / "hookline-gateway", self.binaries / "hookline-dispatcher"]
        for program, target in [(service, "build") for service in services] + [
            (paths.NATS_SERVER, "servers"),
            (paths.REDIS_SERVER, "servers"),
        ]:
            if not os.access(program, os.X_OK):
                raise Failure(f"{paths.shown(program)} is not there or cannot be run; `make {target}` makes it")

    def _spawn(self, service: Service) -> None:
        program = service.command[0]
        log = self.log(service.name)
        if log.exists():
            os.replace(log, log.with_suffix(".log.1"))
        try:
            process = processes.spawn(service.name, service.command, service.env, log, self.temporary)
        except OSError as error:
            raise Failure(f"{service.name}: cannot start {paths.shown(pathlib.Path(program))}: {error}") from None
        self.processes[service.name] = process
        # At once: whatever happens next, the process can be found again.
        self._save()

    def _wait_until_ready(self, service: Service, until: float) -> None:
        process = self.processes[service.name]
        while True:
            # In this order: somebody else may be answering on the port that our process did not get.
            ready = service.ready()
            if not processes.alive(process):
                raise Failure(f"{service.name} {processes.how_it_ended(process)}")
            if ready:
                return
            if time.monotonic() > until:
                raise Failure(f"{service.name} was not ready within {READY_WITHIN_S:.0f} s")
            time.sleep(0.05)

    # -- the state file

    def _load(self) -> None:
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            self.ports = {name: int(port) for name, port in state["ports"].items() if name in USUAL_PORTS}
            self.processes = {entry["name"]: processes.Process(**entry) for entry in state["processes"]}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failure(f"cannot read {self.folder / 'state.json'}: {error!r}; remove it to start anew") from None

    def _save(self) -> None:
        state = {"ports": self.ports, "processes": [process._asdict() for process in self.processes.values()]}
        new = self.folder / ".state.new"
        new.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        os.replace(new, self.folder / "state.json")


SCHEMES = {"nats": "nats", "redis": "redis"}
NAMES = ("nats", "redis", "receiver", "gateway", *DISPATCHERS)


def environment(keep_settings: bool) -> Dict[str, str]:
    """For the processes: loopback never goes through a proxy; the user's settings on demand only."""
    env = dict(os.environ)
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name), LOOPBACK, "localhost", "::1"]))
    if not keep_settings:
        env = {name: value for name, value in env.items() if not name.startswith("HOOKLINE_")}
    return env


# A proxy from the environment must not be asked for what is on this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, timeout_s: float = 2.0) -> Optional[str]:
    """The body of an answer that is 200; None for everything else."""
    try:
        with _DIRECT.open(url, timeout=timeout_s) as answer:
            return answer.read().decode("utf-8", "replace") if answer.status == 200 else None
    except (OSError, ValueError):
        return None


def answers_ok(url: str) -> bool:
    """Whether it answers 200."""
    return get(url) is not None


def redis_is_ready(port: int) -> bool:
    """Whether it takes commands; it does not while it reads its data."""
    try:
        with socket.create_connection((LOOPBACK, port), 1.0) as wire:
            wire.sendall(b"PING\r\n")
            return wire.recv(64).startswith(b"+PONG")
    except OSError:
        return False
