"""MkDocs hooks for docs/. Links that leave docs/ lead to the repository, at the address that Cargo.toml has."""

import pathlib
import re

from mkdocs.exceptions import PluginError

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BRANCH = "main"
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()(\.\./[^)#\s]*)(#[^)\s]*)?(\))")
# How the tests know a block that they cannot run; MkDocs would take it for text.
NO_RUN = re.compile(r"^([ \t]*```\w+) no-run$", re.MULTILINE)


def repository():
    text = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    found = re.search(r'^repository = "(https://[^"]+)"$', text, re.MULTILINE)
    if not found:
        raise PluginError("Cargo.toml has no `repository`, to which links that leave docs/ lead")
    return found.group(1).rstrip("/")


def on_page_markdown(markdown, page, config, files):
    folder = (DOCS / page.file.src_uri).parent

    def address(match):
        before, path, anchor, after = match.groups()
        target = (folder / path).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            raise PluginError(f"docs/{page.file.src_uri}: {path} does not exist")
        kind = "tree" if target.is_dir() else "blob"
        return f"{before}{repository()}/{kind}/{BRANCH}/{target.relative_to(ROOT)}{anchor or ''}{after}"

    # Code is no link.
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(address, markdown[end : fence.start()]), fence.group()]
        end = fence.end()
    parts.append(LINK.sub(address, markdown[end:]))
    return NO_RUN.sub(r"\1", "".join(parts))
