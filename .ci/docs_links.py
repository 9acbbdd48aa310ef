#!/usr/bin/env python3
"""Check what MkDocs does not: links of pages outside docs/, anchors as GitHub makes them, and that the site asks for
nothing from other hosts. Usage: docs_links.py SITE"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+?)[ #]*$", re.MULTILINE)
# What a browser loads by itself; a link to another host is none.
LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?:https?:)?//[^\"]*\"|<link\b[^>]*\bhref=\"(?:https?:)?//[^\"]*\"")
# Tells search engines where the page is.
CANONICAL = re.compile(r"<link\b[^>]*\brel=\"canonical\"")


def main():
    if len(sys.argv) != 2:
        return "usage: docs_links.py SITE"
    site = pathlib.Path(sys.argv[1])
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        universal_newlines=True,
    )
    pages = [ROOT / name for name in sorted(set(listed.stdout.split("\n"))) if name and (ROOT / name).exists()]
    faults, links = [], 0
    for page in pages:
        for link in LINK.findall(prose(page)):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            links += 1
            fault = broken(page, link)
            if fault:
                faults.append(f"{page.relative_to(ROOT)}: {link}: {fault}")
    built = sorted(site.rglob("*.html"))
    for page in built:
        for loaded in LOADED.findall(page.read_text(encoding="utf-8")):
            if not CANONICAL.match(loaded):
                faults.append(f"{page.relative_to(site)} loads from another host: {loaded}")
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return f"docs: {len(faults)} faults"
    print(f"docs: {len(built)} pages in {site}; {links} links of {len(pages)} files ok")
    return 0 if built else f"no page in {site}"


def prose(page):
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def broken(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return "there is no such file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return "there is no such heading"
    return None


def anchors(page):
    """As GitHub makes them."""
    seen, found = {}, set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


if __name__ == "__main__":
    sys.exit(main())
