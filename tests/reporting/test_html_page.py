import html.parser
import json
import re

import pytest

from radio_dspy.reporting import html_page as pages
from radio_dspy.reporting import plots
from radio_dspy.reporting.html_page import render_page
from radio_dspy.reporting.markdown import plain, render_markdown
from radio_dspy.reporting.summary import read_summary
from tests.reporting.pages import EVIL, comparison, finished_run, report

pytestmark = pytest.mark.drawn


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, and the text of script elements."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A run in which every text that another wrote is hostile, and its page."""
    found = comparison(text=EVIL, query="{} " + EVIL)
    gate = report(found).gate | {"metric": EVIL, "sentence": EVIL}
    training = report(found).training | {"base": EVIL, "stopped": EVIL}
    changes = {"gate": gate, "training": training, "reranker": EVIL, "left_out": {EVIL: 3}}
    summary, questions = read_summary(finished_run(tmp_path_factory.mktemp("evil"), found, **changes))
    return summary, questions, render_page(summary, questions)


def test_what_others_wrote_cannot_run(evil):
    _, questions, text = evil
    seen = Reader(text)
    assert len(seen.scripts) == 2
    assert "owned" not in seen.scripts[1]
    assert json.loads(seen.scripts[0]) == questions
    assert "<" not in seen.scripts[0]
    tags = {tag for tag, _ in seen.tags}
    assert "img" not in tags
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert "\0" not in text
    assert "\x1b" not in text
    assert "{{ 7 * 7 }}" in text  # a template in a text is not filled in


def test_nothing_comes_from_elsewhere(evil):
    text = evil[2]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src &#39;none&#39;") or policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy
    for _, attributes in Reader(text).tags:
        for name in ("src", "href", "action", "data"):
            assert attributes.get(name, "data:,")[:1] in ("d", "#"), attributes


def test_the_page_shows_what_the_report_says(tmp_path):
    summary, questions = read_summary(finished_run(tmp_path))
    text = render_page(summary, questions)
    for part in (
        summary.decision.replace(">", "&gt;"),
        "12 questions; relevant are labelled passages.",
        "price unknown",
        "$0.0125",
        "negative left out: contains an answer",
        "The gate chose on these very questions",
        "8 of 10 used",
    ):
        assert part in text
    assert text.count('role="img"') == 4
    assert "Without matplotlib" not in text


def test_without_matplotlib_there_are_tables_and_a_line_that_helps(tmp_path, monkeypatch):
    summary, questions = read_summary(finished_run(tmp_path))
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    text = render_page(summary, questions)
    assert "<svg" not in text
    assert "pip install &#39;radio-dspy[report]&#39;" in text
    assert text.count("<details open>") == 4
    assert '<th scope="row">mixture 0.5</th>' in text


def test_a_run_without_questions_has_a_page(tmp_path):
    finished_run(tmp_path)
    (tmp_path / "comparison.jsonl").unlink()
    text = render_page(*read_summary(tmp_path))
    assert "There are none to browse." in text
    assert "comparison.jsonl is not there" in text


def test_every_part_of_the_page_is_in_the_package():
    for name in ("report.html", "report.css", "report.js"):
        assert pages._file(name)
    assert "</script" not in pages._file("report.js")


def test_markdown_has_the_same_figures(tmp_path):
    text = render_markdown(*read_summary(finished_run(tmp_path)))
    assert text.startswith("# aligned reranker against base reranker\n\nReturned the mixture 0.5 weights")
    assert "4 helped, 4 hurt, 4 unchanged." in text
    assert "| rationales | 9.0 | 9 | 1 | 2 | 70 | 30 | \\$0.0125 |" in text
    assert "## Most hurt" in text
    assert "| negative left out: contains an answer | 4 |" in text


def test_markdown_escapes_what_others_wrote(evil):
    text = render_markdown(*evil[:2])
    assert not re.search(r"(?<!\\)<", text)
    assert "\0" not in text
    assert plain("a\n\n# b | [c](d)") == "a \\# b \\| \\[c\\](d)"
