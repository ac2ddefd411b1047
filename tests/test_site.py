"""What the site is made of: every public name, command and setting; links and versions that hold."""

import importlib
import re
import sys

import pytest

import radio_dspy
from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest.importorskip("typer")
TOOLS = ROOT / "docs" / "tools"
LINKING = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "llms.txt"]


@pytest.fixture
def tools(monkeypatch):
    """A module of docs/tools by its name."""
    monkeypatch.syspath_prepend(str(TOOLS))
    yield importlib.import_module
    for name in ("reference", "pages", "notebooks", "drawings"):
        sys.modules.pop(name, None)


@pytest.fixture
def made(tools):
    """The pages that are made of the code."""
    return tools("reference").pages(ROOT)


def test_every_public_name_has_an_entry(made, tools):
    entries = re.findall(r"^::: (\S+)$", "\n".join(made.values()), flags=re.MULTILINE)
    names = {one.rpartition(".")[2] for one in entries}
    assert names >= set(radio_dspy._HOMES)
    assert names >= set(radio_dspy.distillation.__all__)
    assert len(entries) == len(set(entries))


def test_commands_and_settings_are_listed_with_their_defaults(made):
    for command in ("compile", "serve", "runs resume"):
        assert f"## radio-dspy {command}" in made["cli.md"]
    assert "`--train`" in made["cli.md"]
    assert re.search(r"\| `learning_rate` \| `6e-05` \| AdamW's", made["settings.md"])


def test_the_table_of_extras_is_pyprojects(made):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in set(project["optional-dependencies"]) - {"test", "browser", "dev", "docs"}:
        assert re.search(rf"^\| `{extra}` \| \w", made["extras.md"], flags=re.MULTILINE), extra


def test_every_page_stands_in_the_navigation(made):
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"'([\w/-]+\.md)'", str(site["project"]["nav"])))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | set(made)
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "examples" / "notebooks").glob("*.ipynb")}
    assert listed == pages | notebooks | {"changelog.md", "contributing.md", "security.md", "code-of-conduct.md"}


def test_links_are_made_to_hold_on_the_site(tools):
    relinked = tools("pages").relinked
    assert (
        relinked("[it](../SECURITY.md) [a](gate.md#guards)", ROOT / "docs") == "[it](security.md) [a](gate.md#guards)"
    )
    assert relinked("[it](docs/gate.md)", ROOT) == "[it](gate.md)"
    assert relinked("[tests](../tests/conftest.py)", ROOT / "docs") == "`tests/conftest.py`"
    assert relinked("*Reference, Settings*", ROOT / "docs") == "[Reference, Settings](settings.md)"
    assert relinked("[web](https://dspy.ai)", ROOT) == "[web](https://dspy.ai)"


@pytest.mark.parametrize("name", LINKING)
def test_a_file_of_the_top_level_links_to_what_is_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / link).is_file(), link


def test_the_release_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == radio_dspy.__version__
    assert f"version: {radio_dspy.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {radio_dspy.__version__} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_drawing_says_in_words_what_it_shows():
    drawn = sorted((ROOT / "docs" / "drawings").glob("*.svg"))
    assert len(drawn) == 3
    for path in drawn:
        svg = path.read_text(encoding="utf-8")
        assert re.search(r"<title [^>]*>\w.*</title><desc [^>]*>\w.{80,}</desc>", svg)
        assert "prefers-color-scheme:dark" in svg
