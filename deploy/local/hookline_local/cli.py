"""The command line of hookline-local."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import List

from . import cluster, demo, interrupt, paths, receiver, terminal, up


def main(arguments: List[str]) -> int:
    """Run one command; its exit code."""
    terminal.prepare()
    if arguments[:1] == ["receiver"]:
        return receiver.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="hookline-local", description="Hookline on this machine.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in (
        ("up", "start a cluster and leave it running"),
        ("demo", "run the four examples on a cluster of their own"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--binaries", type=pathlib.Path, default=paths.ROOT / "target" / "debug", help="folder of the binaries"
        )
    commands.add_parser("down", help="stop the cluster that `up` started")
    commands.add_parser("receiver", help="the HTTP server that records what it is sent")
    publish = commands.add_parser("pub", help="publish a message to the cluster that `up` started")
    publish.add_argument("subject", help="hookline.events.<workspace>.<source>.<event>")
    publish.add_argument("body", help="a JSON object")
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
