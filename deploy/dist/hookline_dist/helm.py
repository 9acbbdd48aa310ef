"""The package of the Helm chart, if there is a chart and helm is on PATH."""

from __future__ import annotations

import io
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from typing import Optional, Tuple

from . import archive
from .archive import File, Files
from .failure import Failure
from .source import ROOT, Release

CHARTS = ("deploy/helm/hookline", "deploy/helm")


def package(release: Release) -> Optional[Tuple[str, bytes]]:
    """The package's file name and content; None where it cannot be made."""
    chart = next((ROOT / place for place in CHARTS if (ROOT / place / "Chart.yaml").is_file()), None)
    fetched = ROOT / ".tools" / "bin" / "helm"
    program = str(fetched) if fetched.exists() else shutil.which("helm")
    if not chart or not program:
        missing = "deploy/helm has no chart" if not chart else "helm is not on PATH"
        print(f"make-dist: SKIPPED the chart's package: {missing}", flush=True)
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "package", str(chart), "--destination", folder]
        command += ["--version", release.version, "--app-version", release.version]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise Failure(f"helm package failed:\n{done.stdout.decode('utf-8', 'replace').strip()}")
        made = next(pathlib.Path(folder).glob("*.tgz"))
        return made.name, _again(made.read_bytes(), release)


def _again(package_of_helm: bytes, release: Release) -> bytes:
    """The same files with one time: helm writes the current one."""
    files: Files = {}
    with tarfile.open(fileobj=io.BytesIO(package_of_helm), mode="r:gz") as members:
        for member in members:
            content = members.extractfile(member)
            if content:
                files[member.name] = File(content.read(), 0o644)
    return archive.gz(archive.tar(files, release.time))
