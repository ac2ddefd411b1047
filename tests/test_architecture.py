"""The floor plan: what docs/design.md draws, what the import contract says, and what the code does are one thing."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "radio_dspy"
PLACES = {"radio_dspy": PACKAGE, "programs": f"{PACKAGE}.programs", "optimizers": f"{PACKAGE}.optimizers"}
FILES = {
    ".".join([name, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder, name in PLACES.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports(module: str, source: str, known: Mapping[str, object]) -> Iterator[str]:
    """What a module imports of the package: at its top, inside functions, and for types alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            for one in node.names:
                whole = f"{node.module}.{one.name}"
                yield whole if whole in known else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.partition(".")[0] == PACKAGE)


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module -> modules; the root is left out, since it names everything for its users."""
    return {
        name: {one for one in imports(name, path.read_text(encoding="utf-8"), FILES) if one in FILES} - {PACKAGE}
        for name, path in FILES.items()
        if name != PACKAGE
    }


@pytest.fixture(scope="module")
def floors() -> list[set[str]]:
    """The contract's floors, the highest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    assert contract["exhaustive"]
    return [set(re.split(r"\s*[|:]\s*", layer)) for layer in contract["layers"]]


def test_there_is_no_circle(graph):
    assert circle_in(graph) == []


def test_a_circle_would_be_seen():
    sources = {
        "radio_dspy.a": "def f():\n    from radio_dspy.b import g\n",
        "radio_dspy.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from radio_dspy import a\n",
    }
    graph = {name: set(imports(name, source, sources)) for name, source in sources.items()}
    assert set(circle_in(graph)) == {"radio_dspy.a", "radio_dspy.b"}


def test_nothing_is_imported_from_a_floor_above_or_beside(graph, floors):
    level = {room: number for number, floor in enumerate(reversed(floors)) for room in floor}
    room_of = {name: name.split(".")[1] for name in graph}
    wrong = [
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in others
        if room_of[name] != room_of[other] and level[room_of[other]] >= level[room_of[name]]
    ]
    assert wrong == []


def test_only_the_command_line_imports_the_root(graph):
    asking = [name for name in graph if PACKAGE in imports(name, FILES[name].read_text(encoding="utf-8"), FILES)]
    assert [name for name in asking if not name.startswith(f"{PACKAGE}.cli.")] == []


def test_folders_show_the_architecture(floors):
    inside = [one for one in (ROOT / PACKAGE).iterdir() if one.name != "__pycache__"]
    assert {one.name for one in inside if one.is_file()} <= {"__init__.py", "_version.py", "py.typed"}
    folders = {one.name for one in inside if one.is_dir()} | {"programs", "optimizers"}
    assert folders == set().union(*floors) - {"_version"}


def section(title: str) -> str:
    return (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition(f"## {title}")[2].partition("\n## ")[0]


def test_the_drawn_plan_is_the_contract(floors):
    rows = [line.split("|")[1] for line in section("Floors").splitlines() if line.startswith("| `")]
    assert [set(re.findall(r"`(\w+)/?`", row)) for row in rows] == [
        floor - {"_version"} for floor in floors if floor - {"_version"}
    ]


def test_the_way_of_a_question_is_the_codes(graph):
    """Each value of the drawn way is returned by the function beside it, and no step sees an optimizer."""
    way = section("One question")
    rows = [re.findall(r"`([^`]+)`", line)[:3] for line in way.splitlines() if line.startswith("| `")]
    assert 1 < len(rows) <= 5
    for value, function, file in rows:
        module = f"{PACKAGE}.{file.removesuffix('.py').replace('/', '.')}"
        tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
        functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
        classes = {one.name: one for one in tree.body if isinstance(one, ast.ClassDef)}
        returned = ast.unparse(functions[function].returns)
        assert value in (ast.unparse(classes[returned]) if returned in classes else returned)
        assert not [one for one in graph[module] if one.startswith(f"{PACKAGE}.optimizers")]
    for file in re.findall(r"`(\w+/[\w/]+\.py)`", way):
        folders = (ROOT / PACKAGE, ROOT / PACKAGE / "distillation", ROOT)
        assert any((folder / file).is_file() for folder in folders), file
