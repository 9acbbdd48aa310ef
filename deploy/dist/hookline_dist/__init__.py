"""Makes the files of a release, byte for byte the same from the same commit with the same tools.

cli       make-dist: all steps in order
source    version, commit and time of what is released
build     binaries for an old glibc, with zig as C compiler and linker
elf       which libraries and symbol versions a binary needs
crates    the crates in the binaries, by cargo
sbom      these as CycloneDX
licences  and their licences' texts
files     which files go where
archive   tar, gzip and ar without time, user or order of the machine
deb       packages for Debian
tools     zig and what checks the bill of materials, from PyPI
helm      the chart's package
compare   builds twice in different folders and compares

Standard library only, Python 3.8 or newer.
"""

import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "local"))
