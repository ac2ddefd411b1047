"""The code in docs/ is run as it is written, page by page, after the README's set-up."""

import re

import dspy
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy.rerankers import Rerank
from tests.conftest import REPLIES, ROOT, scripted

PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL))


LONG = {"optimizers", "your-program"}  # these compile several times, or run MIPROv2
WITH_CODE = [
    pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in LONG else [])
    for page in PAGES
    if blocks(page)
]


def test_the_pages_that_teach_have_code():
    assert {"backends", "concepts", "optimizers", "saving"} <= {page.stem for page in PAGES if blocks(page)}


@pytest.mark.parametrize("page", WITH_CODE)
def test_a_pages_code_runs(page, topic, small, small_by_name, index, tmp_path, monkeypatch):
    """A page may use what the README sets up: passages, train, dev, encoder, retriever, program and lm."""
    monkeypatch.chdir(tmp_path)
    rerank = Rerank(small, architecture="bi-encoder")
    names = {
        "passages": topic.passages,
        "train": topic.train[:8],
        "dev": topic.test,
        "encoder": small,
        "retriever": index,
        "program": RetrieveRerankAnswer(index, rerank, candidates=10, k=3),
        "lm": scripted(**REPLIES),
    }
    with dspy.context(lm=names["lm"]):
        exec(compile(blocks(page), str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_links_only_to_files_that_are_there(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
