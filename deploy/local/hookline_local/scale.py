"""hookline-local scale and autoscale: more or fewer dispatchers in the cluster of `up`."""

from __future__ import annotations

import json
import pathlib
import time
from typing import Optional

from . import cluster, terminal, up
from .cluster import NAMES, Cluster

LOOK_S = 5.0
# Up at once; down by half, after fewer were wanted for so long.
PATIENCE_S = 60.0


def scale(binaries: Optional[pathlib.Path], wanted: int) -> int:
    """Starts or stops dispatchers until `wanted` run."""
    with up.alone():
        here = up.running_cluster(binaries)
        if not is_up(here):
            return 1
        _scale(here, wanted)
    return 0


def autoscale(binaries: Optional[pathlib.Path], least: int, most: int) -> int:
    """Runs as many dispatchers as the gateway wants, until it is interrupted. Then they stay as they are."""
    terminal.say(f"following /scaling of the gateway: {least} to {most} dispatchers; Ctrl-C ends it")
    fewer_since: Optional[float] = None
    while True:
        with up.alone():
            here = up.running_cluster(binaries)
            if not is_up(here):
                return 1
            running = len(here.dispatchers())
            wanted = _wanted(here)
            if wanted is not None:
                wanted = min(max(wanted, least), most)
                if wanted >= running:
                    fewer_since = None
                elif fewer_since is None:
                    fewer_since = time.monotonic()
                if wanted > running:
                    _scale(here, wanted)
                elif fewer_since is not None and time.monotonic() - fewer_since >= PATIENCE_S:
                    _scale(here, max(wanted, running // 2))
                    fewer_since = None
        time.sleep(LOOK_S)


def is_up(here: Cluster) -> bool:
    servers = [name for name in NAMES if not name.startswith(cluster.DISPATCHER)]
    running = here.alive()
    if all(name in running for name in servers):
        return True
    terminal.bad("Hookline is not up; run `make up` first")
    return False


def _wanted(here: Cluster) -> Optional[int]:
    """None: the gateway does not know, so leave it as it is."""
    answer = cluster.get(here.url("gateway", "/scaling"))
    if answer is None:
        terminal.say("the gateway does not know how many are wanted")
        return None
    found = json.loads(answer)
    terminal.say(
        f"{found['pending']} pending, {found['in_flight']} in hand, {found['workers']} dispatchers, "
        f"{found['wanted_workers']} wanted"
    )
    return int(found["wanted_workers"])


def _scale(here: Cluster, wanted: int) -> None:
    before = len(here.dispatchers())
    if before == wanted:
        terminal.say(f"{wanted} dispatchers run already.")
        return
    terminal.say(f"{before} to {wanted} dispatchers ...")
    here.scale(wanted)
    for name in here.dispatchers():
        terminal.say(f"  {name:14} {here.url(name)}/metrics")
