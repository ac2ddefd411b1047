"""Make build/pages, what the site is built from: docs/ as it is, and what the code says of itself.

    python docs/tools/pages.py

Every public name comes from its docstring, the command line from its declaration, settings from their dataclasses, the
table of extras from pyproject.toml, notebooks from examples/notebooks.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import reference
from notebooks import notebook_pages

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
PAGES = BUILD / "pages"
# Files of the top level that are pages of the site, too.
TOP = {name: f"{name.lower().replace('_', '-')}" for name in (
    "CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md",
)}  # fmt: skip
# What a page of docs/ calls *Reference, Settings*: pages that the site alone has.
REFERENCE = {
    "Python": "api/optimizers.md",
    "Command line": "cli.md",
    "Settings": "settings.md",
    "Installation and extras": "extras.md",
}
_REFERENCE = re.compile(r"\*(Reference, ([^*]+))\*")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def main() -> None:
    """Write the pages, and a copy of the sources in the layout in which they are installed."""
    shutil.rmtree(PAGES, ignore_errors=True)
    # Pages are written below; what is left are drawings and plots.
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("tools", "*.md", "*.json"))
    for path in (ROOT / "docs").glob("*.md"):
        write(path.name, relinked(path.read_text(encoding="utf-8"), path.parent))
    for name, page in TOP.items():
        write(page, relinked((ROOT / name).read_text(encoding="utf-8"), ROOT))
    for name, text in {**reference.pages(ROOT), **notebook_pages(ROOT / "examples" / "notebooks")}.items():
        write(name, text)
    for name in ("site.css", "site.js"):
        shutil.copy(ROOT / "docs" / "tools" / name, PAGES / name)
    llms = (ROOT / "llms.txt").read_text(encoding="utf-8")
    write("llms.txt", re.sub(r"\]\((?:docs/)?([^):]+)\.md\)", lambda link: f"]({link[1].lower()}.html)", llms))
    namespace()


def write(name: str, text: str) -> None:
    """Write one page of the site."""
    path = PAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def relinked(text: str, folder: Path) -> str:
    """The text with links that hold on the site; a file that is no page of it is named without a link."""

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found[1], (folder / found[2]).resolve().relative_to(ROOT), found[3] or ""
        if target.parts[0] == "docs":
            return f"[{words}]({target.relative_to('docs').as_posix()}{anchor})"
        if page := TOP.get(target.as_posix()):
            return f"[{words}]({page}{anchor})"
        return words if words.startswith("`") else f"`{target.as_posix()}`"

    return _REFERENCE.sub(lambda found: f"[{found[1]}]({REFERENCE[found[2]]})", _LINK.sub(link, text))


def namespace() -> None:
    """The packages as they are installed, for the reader of docstrings."""
    home = BUILD / "namespace" / "radio_dspy"
    shutil.rmtree(home, ignore_errors=True)
    for folder, place in (("radio_dspy", home), ("optimizers", home / "optimizers"), ("programs", home / "programs")):
        shutil.copytree(ROOT / folder, place, ignore=shutil.ignore_patterns("__pycache__"))
    for path in home.rglob("*.py"):  # the section's name as mkdocstrings knows it
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"^( +)Example:$", r"\1Examples:", text, flags=re.MULTILINE), encoding="utf-8")


if __name__ == "__main__":
    main()
