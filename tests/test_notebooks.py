"""The notebooks run from top to bottom, each in less than a minute, and are kept without outputs that nobody made."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
LARGEST = 20_000  # bytes; outputs are a few lines


def test_there_are_notebooks():
    assert [one.stem[:2] for one in NOTEBOOKS] == ["01", "02", "03"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_names_no_place(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST
    assert "/home/" not in text
    assert "/tmp/" not in text
    for cell in json.loads(text)["cells"]:
        for link in cell["source"] if cell["cell_type"] == "markdown" else []:
            for name in link.split("](../../")[1:]:
                assert (ROOT / name.split(")")[0]).is_file(), name


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": tmp_path}}
    client = NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources)
    client.iopub_timeout = 60  # a busy machine delivers what was printed late
    client.shutdown_kernel = "immediate"  # else it waits half a minute for threads that sleep
    client.execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "Returned the " in printed or "updates" in printed
