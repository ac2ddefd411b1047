"""Pages of the reference, made of what the code declares."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import radio_dspy
from radio_dspy.core.fields import field_docs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Packages with a page of their own, and what each page is for.
PACKAGES = {
    "optimizers": "Optimizers: what you call to align a program, and presets of their settings.",
    "programs": "Programs that are ready to be aligned, and what puts a reranker into your own.",
    "rerankers": "Rerankers: the trainable one, and others to stand beside it or teach it.",
    "retrievers": "First stages: passages in memory, in a file, or in your vector store.",
    "distillation": "The steps of the method, each alone: signals, fusion, groups, losses, training, gate.",
    "questions": "Questions made from documents, or from traces of what people asked.",
    "engines": "Where the long steps run: the workers of a Ray cluster.",
    "lm": "Language models: the local one, budgets, signatures, adapters.",
    "models": "Encoders, local and hosted, and where weights are found.",
    "datasets": "Read your passages, questions and preference groups.",
    "evaluation": "Metrics of rankings and answers, with intervals.",
    "reporting": "Before and after: pages, and comparisons of two programs.",
    "persistence": "Save, load, export, share.",
    "core": "The values that are handed from step to step, and the errors.",
}
SETTINGS = (
    "PreferenceSettings", "FalseNegatives", "RationaleSettings", "TrainingSettings", "LoraSettings", "Gate", "Budget",
)  # fmt: skip
FURTHER = ("distillation", "datasets", "evaluation")  # modules of the root whose own names are public, too


def pages(root: Path) -> dict[str, str]:
    """Name -> text of every page of the reference."""
    return {
        **{f"api/{name}.md": _package(name, words) for name, words in PACKAGES.items()},
        "cli.md": _command_line(),
        "settings.md": _settings(),
        "extras.md": _extras(root),
    }


def public_names() -> dict[str, str]:
    """Public name -> the path by which griffe finds it: the module that defines it, and its name there."""
    found = {name: f"{home}.{name}" for name, home in radio_dspy._HOMES.items()}
    for module in FURTHER:
        for name in getattr(radio_dspy, module).__all__:
            value = getattr(getattr(radio_dspy, module), name)
            home = getattr(value, "__module__", "")
            if home.startswith("radio_dspy.") and hasattr(import_module(home), name):
                found.setdefault(name, f"{home}.{name}")
    return found


def _package(package: str, words: str) -> str:
    names = public_names()
    here = sorted(name for name, path in names.items() if path.split(".")[1] == package)
    entries = []
    for name in here:
        place = "radio_dspy" if name in radio_dspy._HOMES else f"radio_dspy.{package}"
        entries.append(f"::: {names[name]}\n\n*Import it as* `from {place} import {name}`.\n")
    return f"# `{package}`\n\n{words}\n\n" + "\n".join(entries)


def _settings() -> str:
    parts = [
        "# Settings\n\nEach is a frozen dataclass, declared once; `RADIO`, the command line and experiments use it.\n"
    ]
    for name in SETTINGS:
        kind = getattr(radio_dspy, name)
        docs = field_docs(kind)
        rows = [f"| `{one.name}` | {_default(one)} | {_cell(docs.get(one.name, ''))} |" for one in fields(kind)]
        doc = (kind.__doc__ or "").partition("\n")[0].replace("``", "`")
        parts.append(
            f"## {name}\n\n{doc}\n\n| setting | default | what |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _default(field: Any) -> str:
    if field.default is not MISSING:
        value = field.default
    elif field.default_factory is not MISSING:
        value = field.default_factory()
    else:
        return "required"
    return f"`{value!r}`" if len(repr(value)) < 60 else f"`{type(value).__name__}()`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("``", "`").split())


def _command_line() -> str:
    import typer.main

    from radio_dspy.cli.app import app

    group = typer.main.get_command(app)
    parts = [f"# Command line\n\n{group.help}\n\n`radio-dspy COMMAND --help` says the same in the terminal.\n"]
    for name, command in _commands(group, ""):
        parts.append(f"## radio-dspy {name}\n\n{(command.help or '').strip()}\n")
        parameters = [one for one in command.params if one.name not in ("help", "version")]
        if parameters:
            rows = [_parameter(one) for one in parameters if not getattr(one, "hidden", False)]
            parts.append("| argument or option | default | what |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _commands(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _parameter(one: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    if one.param_type_name == "argument":
        names = f"`{one.name.upper()}`"
    default = "required" if one.required else "" if one.default in (None, (), []) else f"`{one.default}`"
    return f"| {names} | {default} | {_cell(one.help or '')} |"


def _extras(root: Path) -> str:
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)["project"]["optional-dependencies"]
    words = _comments(text)
    rows = [
        f"| `{name}` | {_cell(words[name])} | {', '.join(f'`{_bare(one)}`' for one in needed)} |"
        for name, needed in declared.items()
        if name not in ("test", "browser", "dev", "docs")
    ]
    start = (root / "docs" / "tools" / "extras.md").read_text(encoding="utf-8")
    return start.replace("TABLE", "| extra | what for | brings |\n| --- | --- | --- |\n" + "\n".join(rows))


def _comments(text: str) -> dict[str, str]:
    """Extra -> the comment above it in pyproject.toml, which also counts for those that follow without one."""
    found: dict[str, str] = {}
    words: list[str] = []
    open_ = False
    for line in text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0].splitlines():
        if line.startswith("#"):
            words = [*words, line[2:]] if open_ else [line[2:]]
            open_ = True
        elif extra := re.match(r"([\w-]+) = ", line):
            found[extra[1]] = " ".join(words)
            open_ = False
    return found


def _bare(requirement: str) -> str:
    return re.split(r"[<>=;\[ ]", requirement)[0]
