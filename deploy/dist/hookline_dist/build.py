"""Builds the services for systems with an old glibc, independent of where the folders are.

zig is the C and C++ compiler and the linker: it has the symbols of all versions of glibc, and links its own C++ library
and unwinder statically. cargo-zigbuild lets cargo use it. Both come from PyPI into .servers/.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
from typing import Dict, List, NamedTuple

from hookline_local import paths

from . import elf, tools
from .crates import TARGET
from .failure import Failure
from .source import BINARIES, ROOT, Release

# RHEL 8, Debian 10 and Ubuntu 18.10 have it.
GLIBC = "2.28"
INSTEAD = "package binaries of your own: make-dist --binaries FOLDER --any-glibc"
# What would change the binaries.
DROPPED = (
    *("RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_BUILD_", "CARGO_ENCODED_", "CARGO_PROFILE_"),
    *("CARGO_TARGET_X86", "CARGO_TARGET_AARCH", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "HOST_C", "TARGET_C"),
    *("CC_", "CXX_", "AR_", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH"),
)


class Tools(NamedTuple):
    zigbuild: pathlib.Path
    zig: pathlib.Path
    zig_version: str


def fetch_tools() -> Tools:
    """cargo-zigbuild and zig at the versions of deploy/local/versions.env."""
    folder = tools.fetch("zig", {"cargo-zigbuild": "CARGO_ZIGBUILD", "ziglang": "ZIG"}, INSTEAD)
    return Tools(folder / "bin" / "cargo-zigbuild", folder / "ziglang" / "zig", paths.versions()["ZIG"])


def build(used: Tools, release: Release, machine: str, profile: str) -> pathlib.Path:
    """Returns the folder with the binaries."""
    target = TARGET.format(machine)
    output = target_folder()
    selected = [argument for binary in BINARIES for argument in ("-p", binary)]
    command = [str(used.zigbuild), "zigbuild", "--locked", *selected, f"--target={target}.{GLIBC}"]
    command += [f"--profile={profile}"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment(used, release, target), check=False)
    except FileNotFoundError as error:
        raise Failure(f"{error.filename} is missing; install Rust: https://rustup.rs") from None
    if done.returncode != 0:
        raise Failure("the build failed; see above")
    folder = output / target / ("debug" if profile == "dev" else profile)
    check(folder, [ROOT, output, cargo_home(), paths.SERVERS])
    return folder


def environment(used: Tools, release: Release, target: str) -> Dict[str, str]:
    """That of this process, without what would change the binaries."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    output = target_folder()
    # Later ones win where several match.
    renamed = {ROOT: "/hookline", output: "/target", cargo_home(): "/cargo"}
    c_flags = " ".join(shlex.quote(f"-ffile-prefix-map={folder}={name}") for folder, name in renamed.items()) + " -g0"
    c_target = target.replace("-", "_")
    return {
        **kept,
        "CARGO_TARGET_DIR": str(output),
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(f"--remap-path-prefix={old}={new}" for old, new in renamed.items()),
        "CARGO_INCREMENTAL": "0",
        "CARGO_PROFILE_RELEASE_STRIP": "symbols",
        "CARGO_ZIGBUILD_ZIG_PATH": str(used.zig),
        "CARGO_ZIGBUILD_CACHE_DIR": str(output / "zig" / "zigbuild"),
        "ZIG_GLOBAL_CACHE_DIR": str(output / "zig" / "cache"),
        "ZIG_LOCAL_CACHE_DIR": str(output / "zig" / "cache"),
        "CC_SHELL_ESCAPED_FLAGS": "1",
        f"CFLAGS_{c_target}": c_flags,
        f"CXXFLAGS_{c_target}": c_flags,
        "SOURCE_DATE_EPOCH": str(release.time),
        "HOOKLINE_REVISION": release.commit,
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
    }


def check(folder: pathlib.Path, builders: List[pathlib.Path]) -> None:
    """Refuses binaries that run here only, or tell where they were built."""
    faults = []
    for binary in BINARIES:
        path = folder / binary
        faults += [f"{binary}: {fault}" for fault in elf.not_portable(elf.needs(path), GLIBC)]
        data = path.read_bytes()
        faults += [f"{binary}: it contains the path {one}" for one in builders if f"{one}/".encode() in data]
    if faults:
        raise Failure("\n".join(["these binaries are not portable:", *faults]))


def target_folder() -> pathlib.Path:
    return pathlib.Path(ROOT, os.environ.get("CARGO_TARGET_DIR", "target")).absolute()


def cargo_home() -> pathlib.Path:
    return pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo").absolute()
