"""Notebooks as pages: their text and code, and the small outputs that they are kept with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_HOW = "*A notebook of the repository: `{path}`. A test runs it on every release.*"


def notebook_pages(folder: Path) -> dict[str, str]:
    """Name -> text of a page for each notebook of the folder."""
    return {f"notebooks/{path.stem}.md": _page(path) for path in sorted(folder.glob("*.ipynb"))}


def _page(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = [part for cell in cells for part in _parts(cell)]
    parts.insert(1, _HOW.format(path=f"examples/notebooks/{path.name}"))
    return "\n\n".join(parts) + "\n"


def _parts(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source.replace("](../../docs/", "](../")]
    return [f"```python\n{source}\n```", *(_shown(one) for one in cell["outputs"])]


def _shown(output: dict[str, Any]) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain") or ""
    return f"```text\n{''.join(text).rstrip()}\n```"
