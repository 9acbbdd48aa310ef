"""A cluster on the loopback interface: NATS, Redis, a gateway, dispatchers and a receiver, and perhaps Prometheus.

<folder>/state.json    ports, processes and the password of NATS' users, for later runs
<folder>/data/         data of NATS, Redis and Prometheus
<folder>/logs/         a log for each process, and its previous log
<folder>/prometheus/   settings of Prometheus
"""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Callable, Dict, List, NamedTuple, Optional

from . import nats, paths, ports, processes
from .ports import LOOPBACK

DISPATCHER = "dispatcher-"
# More come with `scale`.
DISPATCHERS = (f"{DISPATCHER}1", f"{DISPATCHER}2")
USUAL_PORTS = {
    "nats": 4222,
    "redis": 6379,
    "admin": 8001,
    "ingest": 8050,
    "gateway": 8100,
    "dispatcher-1": 9100,
    "dispatcher-2": 9101,
    "receiver": 8080,
}
# Beside the cluster, and not needed by it.
PROMETHEUS = "prometheus"
PROMETHEUS_PORT = 9090
READY_WITHIN_S = 60.0
# Services finish attempts in flight before they stop.
SERVICES_END_WITHIN_S = 40.0
SERVERS_END_WITHIN_S = 10.0
NATS_USERS = ("system", "operator", "gateway", "dispatcher", "injector", "observer")
# The environment overrides these.
DEFAULTS = {
    # By default dispatchers deliver to public addresses only, but the receiver is on loopback.
    "HOOKLINE_EGRESS_ALLOW": "127.0.0.0/8,::1/128",
    # Reserved when the stream is created. The default of 4 GiB may not fit on a small disk.
    "HOOKLINE_EVENTS_MAX_BYTES": str(256 * 1024 * 1024),
}


class Failure(Exception):
    """The cluster did not start."""


class Service(NamedTuple):
    """How to start a process and check that it is ready."""

    name: str
    command: List[str]
    env: Dict[str, str]
    ready: Callable[[], bool]


class Cluster:
    """A cluster and its folder."""

    def __init__(
        self, folder: pathlib.Path, binaries: Optional[pathlib.Path], env: Dict[str, str], temporary: bool
    ) -> None:
        self.folder = folder
        # Without others, those that it was started with.
        self.binaries = binaries or paths.ROOT / "target" / "debug"
        self.env = env
        # The processes of a temporary cluster die with this process.
        self.temporary = temporary
        self.ports: Dict[str, int] = {}
        self.processes: Dict[str, processes.Process] = {}
        # Begins with a letter: NATS would read digits as a number.
        self.password = "p" + secrets.token_hex(16)
        self._load(keep_binaries=binaries is not None)

    def url(self, name: str, path: str = "") -> str:
        return f"{SCHEMES.get(name, 'http')}://{LOOPBACK}:{self.ports[name]}{path}"

    def nats_url(self, user: str) -> str:
        """For a user of deploy/nats/accounts.conf; without one a client is the operator."""
        return f"nats://{user}:{self.password}@{LOOPBACK}:{self.ports['nats']}"

    def log(self, name: str) -> pathlib.Path:
        return self.folder / "logs" / f"{name}.log"

    def alive(self) -> List[str]:
        """The names of running processes."""
        return [name for name, process in self.processes.items() if processes.alive(process)]

    def dispatcher_settings(self, status_port: int) -> Dict[str, str]:
        """The settings of a dispatcher of this cluster."""
        return {
            "HOOKLINE_STATUS_LISTEN": f"{LOOPBACK}:{status_port}",
            "HOOKLINE_NATS_URL": self.nats_url("dispatcher"),
            "HOOKLINE_REDIS_URL": self.url("redis"),
            **{name: self.env.get(name, default) for name, default in DEFAULTS.items()},
        }

    def choose_ports(self) -> Dict[str, int]:
        """Returns the ports that are not the default, because the default is taken."""
        self.ports = ports.choose(USUAL_PORTS)
        return {name: port for name, port in self.ports.items() if port != USUAL_PORTS[name]}

    def start(self, names: List[str]) -> None:
        """Starts servers, then services, and waits until all are ready."""
        self._check_programs()
        for sub in ("data/nats", "data/redis", "logs"):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        services = [service for service in self._services() if service.name in names]
        servers = [service for service in services if service.name in ("nats", "redis")]
        self._start_group(servers)
        if not any(name in self.alive() for name in DISPATCHERS):
            self._replace_settings()
        self._start_group([service for service in services if service not in servers])

    def restart(self, name: str, settings: Dict[str, str]) -> None:
        """Starts a service again with further settings."""
        self.env.update(settings)
        processes.end([self.processes[name]], SERVICES_END_WITHIN_S)
        self._start_group([service for service in self._services() if service.name == name])

    def _start_group(self, group: List[Service]) -> None:
        for service in group:
            self._spawn(service)
        until = time.monotonic() + READY_WITHIN_S
        for service in group:
            self._wait_until_ready(service, until)

    def _replace_settings(self) -> None:
        """Those of an earlier start may have been others."""
        dispatcher = self._dispatcher(DISPATCHERS[0])
        command = [*dispatcher.command, "replace-settings"]
        done = subprocess.run(command, env=dispatcher.env, capture_output=True, timeout=READY_WITHIN_S, check=False)
        if done.returncode != 0:
            raise Failure(done.stderr.decode("utf-8", "replace").strip() or "the settings were refused")

    def start_prometheus(self, binary: pathlib.Path) -> None:
        """Starts a Prometheus that scrapes this cluster, and waits until it is ready."""
        with ports.reserved():
            port = self.ports.get(PROMETHEUS, PROMETHEUS_PORT)
            self.ports[PROMETHEUS] = port if ports.is_free(port) else ports.any_free(self.ports.values())
            self._start_group([self._prometheus(binary)])

    def dispatchers(self) -> List[str]:
        """The names of running dispatchers, in order."""
        return sorted((name for name in self.alive() if name.startswith(DISPATCHER)), key=number_of)

    def scale(self, wanted: int) -> None:
        """Starts or stops dispatchers until `wanted` run. Those with the highest numbers are stopped."""
        running = self.dispatchers()
        self._check_programs()
        with ports.reserved():
            started = []
            for number in range(1, wanted + 1):
                name = f"{DISPATCHER}{number}"
                if len(running) + len(started) < wanted and name not in running:
                    port = self.ports.get(name) or ports.any_free(self.ports.values())
                    self.ports[name] = port if ports.is_free(port) else ports.any_free(self.ports.values())
                    started.append(self._dispatcher(name))
            self._start_group(started)
        stopped = [self.processes[name] for name in running[wanted:]]
        processes.end(stopped, SERVICES_END_WITHIN_S)
        for process in stopped:
            self.processes.pop(process.name, None)
        self._save()
        if PROMETHEUS in self.alive():
            self._prometheus_settings()

    def stop_prometheus(self) -> None:
        """Stops Prometheus only."""
        processes.end([self.processes[PROMETHEUS]] if PROMETHEUS in self.alive() else [], SERVERS_END_WITHIN_S)
        self.processes.pop(PROMETHEUS, None)
        self._save()

    def stop(self) -> List[str]:
        """Stops services, then servers. Returns the names of processes that had to be killed."""
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
                {
                    **plain,
                    **{f"HOOKLINE_NATS_{user.upper()}_PASSWORD": self.password for user in NATS_USERS},
                    "HOOKLINE_NATS_STORAGE": "-1",
                },
                lambda: nats.is_ready((LOOPBACK, self.ports["nats"])),
            ),
            Service(
                "redis",
                [str(paths.REDIS_SERVER), str(paths.REDIS_CONF), "--bind", LOOPBACK]
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
                    "HOOKLINE_INGEST_LISTEN": f"{LOOPBACK}:{self.ports['ingest']}",
                    "HOOKLINE_STATUS_LISTEN": f"{LOOPBACK}:{self.ports['gateway']}",
                    "HOOKLINE_NATS_URL": self.nats_url("gateway"),
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

    def _prometheus(self, binary: pathlib.Path) -> Service:
        plain = {key: value for key, value in self.env.items() if not key.startswith("HOOKLINE_")}
        return Service(
            PROMETHEUS,
            [str(binary), f"--config.file={self._prometheus_settings()}"]
            + [f"--storage.tsdb.path={self.folder / 'data' / 'prometheus'}", "--storage.tsdb.retention.time=3d"]
            + [f"--web.listen-address={LOOPBACK}:{self.ports[PROMETHEUS]}"],
            plain,
            lambda: answers_ok(self.url(PROMETHEUS, "/-/ready")),
        )

    def _prometheus_settings(self) -> pathlib.Path:
        """The settings of deploy/prometheus, with the targets of this cluster."""
        folder = self.folder / "prometheus"
        (folder / "targets").mkdir(parents=True, exist_ok=True)
        rules = folder / "rules"
        if not rules.is_symlink():
            rules.symlink_to(paths.PROMETHEUS_RULES)
        shutil.copyfile(paths.PROMETHEUS_CONF, folder / "prometheus.yml")
        for job, names in (("gateway", ["gateway"]), ("dispatcher", self.dispatchers())):
            targets = [f"{LOOPBACK}:{self.ports[name]}" for name in names]
            # JSON is YAML, too.
            text = json.dumps([{"targets": targets}]) + "\n"
            (folder / "targets" / f"{job}.yml").write_text(text, encoding="utf-8")
        return folder / "prometheus.yml"

    def _check_programs(self) -> None:
        services = [self.binaries / "hookline-gateway", self.binaries / "hookline-dispatcher"]
        for program, target in [(service, "build") for service in services] + [
            (paths.NATS_SERVER, "servers"),
            (paths.REDIS_SERVER, "servers"),
        ]:
            if not os.access(program, os.X_OK):
                raise Failure(f"{paths.shown(program)} is missing or not executable; run `make {target}`")

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
        # At once, so that a later run can find the process whatever happens next.
        self._save()

    def _wait_until_ready(self, service: Service, until: float) -> None:
        process = self.processes[service.name]
        while True:
            # Check readiness before liveness: another process may answer on a port that ours failed to bind.
            ready = service.ready()
            if not processes.alive(process):
                raise Failure(f"{service.name} {processes.how_it_ended(process)}")
            if ready:
                return
            if time.monotonic() > until:
                raise Failure(f"{service.name} is not ready after {READY_WITHIN_S:.0f} s")
            time.sleep(0.05)

    def _load(self, keep_binaries: bool) -> None:
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            known = {name: int(port) for name, port in state["ports"].items() if is_known(name)}
            self.ports = {**USUAL_PORTS, **known} if known else {}
            if not keep_binaries and "binaries" in state:
                self.binaries = pathlib.Path(state["binaries"])
            self.password = str(state.get("password", self.password))
            self.processes = {entry["name"]: processes.Process(**entry) for entry in state["processes"]}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failure(f"cannot read {self.folder / 'state.json'}: {error!r}; delete it and try again") from None

    def _save(self) -> None:
        started = [process._asdict() for process in self.processes.values()]
        state = {
            "ports": self.ports,
            "password": self.password,
            "binaries": str(self.binaries),
            "processes": started,
        }
        new = self.folder / ".state.new"
        new.touch(mode=0o600)
        new.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        os.replace(new, self.folder / "state.json")


def number_of(dispatcher: str) -> int:
    number = dispatcher[len(DISPATCHER) :]
    return int(number) if number.isdigit() else 0


def is_known(name: str) -> bool:
    """Whether a port of this name is one of a cluster."""
    return name in (*USUAL_PORTS, PROMETHEUS) or (name.startswith(DISPATCHER) and number_of(name) > 0)


SCHEMES = {"nats": "nats", "redis": "redis"}
NAMES = ("nats", "redis", "receiver", "gateway", *DISPATCHERS)


def environment(keep_settings: bool) -> Dict[str, str]:
    """The environment of processes: no proxy for loopback, and HOOKLINE_ variables only on demand."""
    env = dict(os.environ)
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name), LOOPBACK, "localhost", "::1"]))
    if not keep_settings:
        env = {name: value for name, value in env.items() if not name.startswith(("HOOKLINE_", "KONG_"))}
    return env


# Loopback never goes through a proxy from the environment.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, timeout_s: float = 2.0) -> Optional[str]:
    """The body of a 200 response, else None."""
    try:
        with _DIRECT.open(url, timeout=timeout_s) as answer:
            return answer.read().decode("utf-8", "replace") if answer.status == 200 else None
    except (OSError, ValueError):
        return None


def answers_ok(url: str) -> bool:
    return get(url) is not None


def redis_is_ready(port: int) -> bool:
    """Whether Redis accepts commands, which it refuses while it loads its data."""
    try:
        with socket.create_connection((LOOPBACK, port), 1.0) as wire:
            wire.sendall(b"PING\r\n")
            return wire.recv(64).startswith(b"+PONG")
    except OSError:
        return False
