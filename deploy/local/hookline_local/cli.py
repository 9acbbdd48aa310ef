"""The command line of hookline-local."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any, List

from . import cluster, demo, interrupt, paths, receiver, scale, terminal, up


# Each takes some 40 MiB and a share of the processors.
MOST_DISPATCHERS = 64


def main(arguments: List[str]) -> int:
    """Runs a command and returns its exit code."""
    terminal.prepare()
    if arguments[:1] == ["receiver"]:
        return receiver.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="hookline-local", description="Run Hookline on this machine.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    with_binaries = {}
    for name, text in (
        ("up", "start a local cluster in the background"),
        ("demo", "run the four examples on a temporary cluster"),
        ("scale", "start or stop dispatchers of the cluster of `up`"),
        ("autoscale", "run as many dispatchers as the gateway wants, until interrupted"),
    ):
        command = with_binaries[name] = _add(commands, name, text)
        command.add_argument(
            "--binaries",
            type=pathlib.Path,
            metavar="FOLDER",
            help="folder of hookline-gateway and hookline-dispatcher (default: that of `up`, or target/debug)",
        )
    with_binaries["scale"].add_argument("dispatchers", type=_count, metavar="N", help="how many dispatchers should run")
    for flag, default in (("--least", 1), ("--most", 8)):
        with_binaries["autoscale"].add_argument(
            flag, type=_count, metavar="N", default=default, help=f"the {flag[2:]} dispatchers (default: {default})"
        )
    _add(commands, "observe", "start Prometheus beside the cluster of `up`")
    _add(commands, "down", "stop the cluster of `up`; its data stays")
    _add(commands, "receiver", "run an HTTP server that records requests")
    publish = _add(commands, "pub", "publish an event to the cluster of `up`")
    publish.add_argument("subject", metavar="SUBJECT", help="hookline.events.<workspace>.<source>.<event>")
    publish.add_argument("body", metavar="BODY", help="the event's data, a JSON object")
    options = parser.parse_args(arguments)
    given = getattr(options, "binaries", None)
    binaries = given.absolute() if given else None
    built = binaries or paths.ROOT / "target" / "debug"
    try:
        if options.command == "up":
            return up.up(built)
        if options.command == "scale":
            return scale.scale(binaries, options.dispatchers)
        if options.command == "autoscale":
            if options.least > options.most:
                parser.error("--least is more than --most")
            with interrupt.raised():
                return scale.autoscale(binaries, options.least, options.most)
        if options.command == "observe":
            return up.observe()
        if options.command == "down":
            return up.down()
        if options.command == "demo":
            return demo.demo(built)
        if options.command == "pub":
            return up.publish(options.subject, options.body)
    except cluster.Failure as failure:
        print(f"hookline-local: {failure}", file=sys.stderr)
        return 1
    except interrupt.Interrupted as stopped:
        return stopped.exit_code
    parser.print_help()
    return 2


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MOST_DISPATCHERS:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {MOST_DISPATCHERS}")
    return number


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return parser
