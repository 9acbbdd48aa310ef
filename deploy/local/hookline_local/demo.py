"""make demo: the four examples of Kong's "Event Hooks Examples", on a temporary cluster.

Each example creates its hook with the document's curl command, makes a change, and waits for the result
that the document shows. A fifth step publishes an event without the gateway. Exits with 0 only if all
results arrived, and leaves no process running.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, TypeVar

from . import cluster, interrupt, nats, paths, ports, terminal
from .cluster import DISPATCHERS, NAMES, Cluster
from .ports import LOOPBACK
from .receiver import Receiver, Request

ARRIVES_WITHIN_S = 20.0
# How long to watch for a second result where one is expected.
SETTLED_AFTER_S = 1.0
COMMAND_ENDS_WITHIN_S = 30.0
TAIL = 20

# The document's commands, verbatim except the last: it mixes -d and -F, which curl refuses, so this uses
# -F throughout.
WEBHOOK = r"""curl -i -X POST http://{HOSTNAME}:8001/event-hooks \
  -d source=crud \
  -d event=consumers \
  -d handler=webhook \
  -d config.url={WEBHOOK_URL}"""

WEBHOOK_CUSTOM = r"""curl -i -X POST http://{HOSTNAME}:8001/event-hooks \
  -d source=crud \
  -d event=admins \
  -d handler=webhook-custom \
  -d config.method=POST \
  -d config.url={WEBHOOK_URL} \
  -d config.headers.content-type="application/json" \
  -d config.payload.text="Admin account \`{{ entity.username }}\` {{ operation}}d; email address set to \`{{ entity.email }}\`" """

LOG = r"""curl -i -X POST http://{HOSTNAME}:8001/event-hooks \
  -d source=crud \
  -d event=consumers \
  -d handler=log"""

LAMBDA = r"""curl -i -X POST http://{HOSTNAME}:8001/event-hooks \
  -F source=crud \
  -F event=consumers \
  -F handler=lambda \
  -F config.functions='return function (data, event, source, pid) local user = data.entity.username error("Event hook on consumer " .. user .. "")end'"""

NEW_CONSUMER = r"""curl -i -X POST http://{HOSTNAME}:8001/consumers -d username="{NAME}" """
NEW_ADMIN = r"""curl -i -X POST http://{HOSTNAME}:8001/admins -d username="{NAME}" -d email="{EMAIL}" """
# The same by the super-admin, whose token is the password.
INVITE_ADMIN = NEW_ADMIN.strip() + r""" -H "Kong-Admin-Token: {KONG_PASSWORD}" """

# The record of the log handler as in the document, with its fields, order and nesting.
LOG_RECORD = re.compile(
    r"""log\ callback:\ "?\s*
    \{\s*"consumers",\s*"crud",\s*\{\s*
        entity\ =\ \{\s*
            created_at\ =\ \d+,\s*
            id\ =\ "[0-9a-f-]{36}",\s*
            type\ =\ 0,\s*
            (?:updated_at\ =\ \d+,\s*)?
            username\ =\ "Elizabeth\ Bennet"\s*
        \},\s*
        operation\ =\ "create",\s*
        schema\ =\ "consumers"\s*
    \},\s*\d+\s*\}""",
    re.VERBOSE,
)
ANSI = re.compile(r"\033\[[0-9;]*m")

Found = TypeVar("Found")


class Failure(Exception):
    """An expected result is missing."""


class Line(NamedTuple):
    """A line of a dispatcher's log."""

    dispatcher: str
    text: str


def demo(binaries: pathlib.Path) -> int:
    """Runs all steps and returns the exit code."""
    if shutil.which("curl") is None:
        terminal.bad("curl is not on PATH, and the examples are curl commands; install the package curl")
        return 1
    paths.RUN.mkdir(exist_ok=True)
    began = time.monotonic()
    with interrupt.raised():
        folder = pathlib.Path(tempfile.mkdtemp(prefix="demo-", dir=paths.RUN))
        disposable = folder
        try:
            _run(Cluster(folder, binaries, cluster.environment(keep_settings=False), temporary=True))
        except interrupt.Interrupted as stopped:
            terminal.bad(str(stopped))
            return stopped.exit_code
        except (Failure, cluster.Failure) as failure:
            terminal.bad(str(failure))
            if (folder / "logs").is_dir():
                disposable = folder / "data"
                terminal.say(f"The logs are in {paths.shown(folder / 'logs')}; `make clean` removes them.")
            return 1
        finally:
            shutil.rmtree(disposable, ignore_errors=True)
    terminal.good(f"all results arrived, and all processes are stopped; took {time.monotonic() - began:.1f} s")
    return 0


def _run(here: Cluster) -> None:
    try:
        show = Demo(here)
        show.start()
        show.webhook()
        show.webhook_custom()
        show.log()
        show.lambda_()
        show.outside()
    except (Failure, cluster.Failure) as failure:
        terminal.say()
        terminal.bad(str(failure))
        for name in NAMES:
            if name in here.processes:
                terminal.log_tail(name, here.log(name), TAIL)
        raise
    finally:
        with interrupt.ignored():
            terminal.say()
            terminal.say("stopping the cluster ...")
            killed = here.stop()
            if killed:
                terminal.bad(f"killed after a timeout: {', '.join(killed)}")


class Demo:
    """The steps in order, then their helpers."""

    def __init__(self, here: Cluster) -> None:
        self.here = here
        self.env = {**here.env, "CURL_HOME": str(here.folder), "XDG_CONFIG_HOME": str(here.folder)}
        self.password = "demo-" + uuid.uuid4().hex[:12]

    def start(self) -> None:
        terminal.title("a cluster: NATS, Redis, a gateway, two dispatchers, a receiver")
        # Replaces the user's own settings of curl, which could change the commands.
        self.configure_curl()
        with ports.reserved():
            for name, port in self.here.choose_ports().items():
                terminal.say(f"{name}: port {cluster.USUAL_PORTS[name]} is taken, using {port}")
            began = time.monotonic()
            self.here.start([name for name in NAMES if name != "receiver"])
            self.receiver = Receiver(self.here.ports["receiver"])
        self.receiver.serve_in_background()
        terminal.good(f"ready after {time.monotonic() - began:.1f} s")
        for name in ("admin", *DISPATCHERS, "receiver", "nats", "redis"):
            terminal.say(f"     {'Admin API' if name == 'admin' else name:13} {self.here.url(name)}")

    def webhook(self) -> None:
        """The receiver gets a ping when the hook is created, then the event."""
        terminal.title("1. webhook: post every change of a consumer to a URL")
        url = self.here.url("receiver", "/webhook")
        self.curl(WEBHOOK, WEBHOOK_URL=url)
        ping = self.arrival("the ping of the new hook", "/webhook", lambda body: body.get("event") == "ping")
        check(ping.get("source") == "kong:event_hooks", "the ping's source is kong:event_hooks")
        self.curl(NEW_CONSUMER, NAME="Ada Lovelace")
        self.consumer_event("Ada Lovelace")

    def webhook_custom(self) -> None:
        """The receiver gets the message for Slack."""
        terminal.title("2. webhook-custom: send a Slack message for every new administrator")
        name, email = "Jane Austen", "jane@example.com"
        self.curl(WEBHOOK_CUSTOM, WEBHOOK_URL=self.here.url("receiver", "/services/foo/bar/baz"))
        self.turn_on_rbac()
        self.curl(NEW_ADMIN, 401, NAME=name, EMAIL=email)
        self.curl(INVITE_ADMIN, 200, NAME=name, EMAIL=email, KONG_PASSWORD=self.password)
        text = f"Admin account `{name}` created; email address set to `{email}`"
        self.arrival("the Slack message", "/services/foo/bar/baz", lambda body: body == {"text": text})
        self.configure_curl(f'header = "Kong-Admin-Token: {self.password}"')
        terminal.say("From here on ~/.curlrc has the token, so that the document's commands stay as they are.")

    def turn_on_rbac(self) -> None:
        """As the document says: with the password, which is the token of the first super-admin."""
        terminal.say()
        terminal.command(f"KONG_PASSWORD={self.password} HOOKLINE_RBAC=on hookline-gateway")
        self.here.restart("gateway", {"KONG_PASSWORD": self.password, "HOOKLINE_RBAC": "on"})
        terminal.good("the gateway is started again, and asks for tokens")

    def log(self) -> None:
        """The record is in a dispatcher's log."""
        terminal.title("3. log: log every change of a consumer")
        self.curl(LOG)
        start = self.log_sizes()
        self.curl(NEW_CONSUMER, NAME="Elizabeth Bennet")

        def record() -> Optional[List[Line]]:
            for name in DISPATCHERS:
                found = find_record(self.log_text(name, start))
                if found:
                    return [Line(name, line) for line in found]
            return None

        self.show_log("the record, in the log of", self.wait("the log handler's record in a dispatcher's log", record))

    def lambda_(self) -> None:
        """The script's error is in a dispatcher's log, once."""
        terminal.title("4. lambda: run a script, which raises an error, for every change of a consumer")
        self.curl(LAMBDA)
        start = self.log_sizes()
        self.curl(NEW_CONSUMER, NAME="Lois Lane")
        text = "Event hook on consumer Lois Lane"

        def said() -> List[Line]:
            return [
                Line(name, line)
                for name in DISPATCHERS
                for line in self.log_text(name, start).splitlines()
                if text in line
            ]

        self.wait(f"{text!r} in a dispatcher's log", said)
        time.sleep(SETTLED_AFTER_S)
        lines = said()
        self.show_log("the script's error, in the log of", lines)
        check(len(lines) == 1, "logged once" if len(lines) == 1 else f"logged once, not {len(lines)} times")
        check("ERROR" in lines[0].text, "at level error")
        check("]:1: " + text in lines[0].text, "with the script's line, 1")

    def outside(self) -> None:
        """An event that no gateway raised reaches the same hooks."""
        terminal.title("5. publish an event without the gateway")
        name = "Grace Hopper"
        subject = "hookline.events.default.crud.consumers"
        entity = {"id": str(uuid.uuid4()), "username": name, "type": 0, "created_at": int(time.time())}
        body = json.dumps({"operation": "create", "schema": "consumers", "entity": entity})
        cli = nats_cli()
        if cli is not None:
            shown = f"nats -s {self.here.url('nats')} pub {subject} '{body}'"
            self.shell(shown, shown.replace("nats", f"'{cli}'", 1))
        else:
            terminal.say("(the NATS CLI is not on PATH: this tool sends the same message instead)")
            terminal.command(f"nats -s {self.here.url('nats')} pub {subject} '{body}'")
            try:
                nats.publish((LOOPBACK, self.here.ports["nats"]), subject, body.encode())
            except (OSError, nats.Refused) as error:
                raise Failure(f"cannot publish the event: {error}") from None
            terminal.output(f"PUB {subject}: read by the server")
        self.consumer_event(name)

    def consumer_event(self, name: str) -> None:
        """Waits until the receiver has the consumer's create event."""
        body = self.arrival(
            f"the event of consumer {name}",
            "/webhook",
            lambda body: body.get("event") == "consumers" and body.get("entity", {}).get("username") == name,
        )
        check(body.get("source") == "crud", "its source is crud")
        check(body.get("operation") == "create", "its operation is create")

    def configure_curl(self, *more: str) -> None:
        lines = ["silent", "show-error", "max-time = 20", *more]
        (self.here.folder / ".curlrc").write_text("\n".join(lines) + "\n", encoding="ascii")

    def curl(self, template: str, expected: int = 201, **values: str) -> None:
        """Runs one of the commands above against this cluster, and expects the status."""
        text = template.strip().replace("http://{HOSTNAME}:8001", self.here.url("admin"))
        for name, value in values.items():
            text = text.replace("{" + name + "}", value)
        answer = self.shell(text, text)
        status = answer.split("\n", 1)[0].split(" ")
        check(len(status) > 1 and status[1] == str(expected), f"the Admin API answered {expected}", quiet=expected == 201)

    def shell(self, shown: str, run: str) -> str:
        """Runs a command in a shell as a user would, and returns its output."""
        terminal.command(shown)
        process = subprocess.Popen(
            ["/bin/sh", "-c", run],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=COMMAND_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise Failure(f"the command took longer than {COMMAND_ENDS_WITHIN_S:.0f} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        text = printed.decode("utf-8", "replace").replace("\r\n", "\n").strip()
        terminal.output(indented(text))
        if process.returncode != 0:
            raise Failure(f"the command failed with exit code {process.returncode}")
        return text

    def arrival(self, what: str, path: str, matches: Callable[[Dict[str, Any]], bool]) -> Dict[str, Any]:
        """Waits for a request with a matching body, and shows it."""

        def found() -> Optional[Tuple[Request, Dict[str, Any]]]:
            for request in self.receiver.requests():
                body = request.json()
                if request.path == path and isinstance(body, dict) and matches(body):
                    return request, body
            return None

        request, body = self.wait(f"{what} at the receiver", found, self.show_other_requests)
        terminal.good(f"the receiver got {what}")
        terminal.output(request.text())
        return body

    def show_other_requests(self) -> None:
        """Shows the last requests if the expected one is missing."""
        for request in self.receiver.requests()[-3:]:
            terminal.say("the receiver got this instead:")
            terminal.output(request.text())

    def wait(self, what: str, look: Callable[[], Optional[Found]], instead: Callable[[], None] = lambda: None) -> Found:
        """Polls for a result. Fails at once if a process of the cluster has ended."""
        until = time.monotonic() + ARRIVES_WITHIN_S
        while True:
            found = look()
            if found:
                return found
            ended = sorted(set(self.here.processes) - set(self.here.alive()))
            if ended:
                raise Failure(f"{', '.join(ended)} ended while waiting for {what}")
            if time.monotonic() > until:
                instead()
                raise Failure(f"{what}: missing after {ARRIVES_WITHIN_S:.0f} s")
            time.sleep(0.02)

    def log_sizes(self) -> Dict[str, int]:
        """The current sizes, to read only later output with log_text."""
        return {name: self.here.log(name).stat().st_size for name in DISPATCHERS}

    def log_text(self, name: str, start: Dict[str, int]) -> str:
        """The dispatcher's output since log_sizes."""
        with open(self.here.log(name), "rb") as file:
            file.seek(start[name])
            return ANSI.sub("", file.read().decode("utf-8", "replace"))

    def show_log(self, what: str, lines: List[Line]) -> None:
        """Shows lines of a dispatcher's log."""
        terminal.good(f"{what} {lines[0].dispatcher}")
        terminal.output("\n".join(line.text for line in lines))


def find_record(text: str) -> Optional[List[str]]:
    """The lines of the log handler's record, if it is complete."""
    lines = text.splitlines()
    for first, line in enumerate(lines):
        if "log callback: " not in line:
            continue
        for last in range(first, min(first + 40, len(lines))):
            # Each line may be inside a box.
            inside = "\n".join(part.strip().strip("|").rstrip() for part in lines[first : last + 1])
            if LOG_RECORD.search(inside):
                return lines[first : last + 1]
    return None


def nats_cli() -> Optional[str]:
    """The NATS CLI on PATH, or the one that `make compat` built."""
    return shutil.which("nats") or shutil.which("nats", path=str(paths.TOOLS / "bin"))


def check(holds: bool, what: str, quiet: bool = False) -> None:
    """Reports a fact, or fails if it does not hold."""
    if not holds:
        raise Failure(f"expected: {what}")
    if not quiet:
        terminal.good(what)


def indented(answer: str) -> str:
    """Indents the JSON body of an HTTP response."""
    head, gap, body = answer.partition("\n\n")
    try:
        return head + gap + json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return answer
