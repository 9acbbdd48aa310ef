"""The command line of hookline-local."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any, List

from . import cluster, demo, interrupt, paths, receiver, terminal, up


def main(arguments: List[str]) -> int:
    """Runs a command and returns its exit code."""
    terminal.prepare()
    if arguments[:1] == ["receiver"]:
        return receiver.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="hookline-local", description="Run Hookline on this machine.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in (
        ("up", "start a local cluster in the background"),
        ("demo", "run the four examples on a temporary cluster"),
    ):
        command = _add(commands, name, text)
        command.add_argument(
            "--binaries",
            type=pathlib.Path,
            metavar="FOLDER",
            default=paths.ROOT / "target" / "debug",
            help="folder of hookline-gateway and hookline-dispatcher (default: target/debug)",
        )
    _add(commands, "down", "stop the cluster of `up`; its data stays")
    _add(commands, "receiver", "run an HTTP server that records requests")
    publish = _add(commands, "pub", "publish an event to the cluster of `up`")
    publish.add_argument("subject", metavar="SUBJECT", help="hookline.events.<workspace>.<source>.<event>")
    publish.add_argument("body", metavar="BODY", help="the event's data, a JSON object")
    options = parser.parse_args(arguments)
    try:
        if options.command == "up":
            return up.up(options.binaries.absolute())
        if options.command == "down":
            return up.down()
        if options.command == "demo":
            return demo.demo(options.binaries.absolute())
        if options.command == "pub":
            return up.publish(options.subject, options.body)
    except cluster.Failure as failure:
        print(f"hookline-local: {failure}", file=sys.stderr)
        return 1
    except interrupt.Interrupted as stopped:
        return stopped.exit_code
    parser.print_help()
    return 2


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return parser
