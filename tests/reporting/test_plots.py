import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from radio_dspy.reporting import plots
from radio_dspy.reporting.summary import read_summary
from tests.reporting.pages import comparison, finished_run, report

pytestmark = pytest.mark.drawn


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return read_summary(finished_run(tmp_path_factory.mktemp("run")))[0]


@pytest.fixture(scope="module")
def found(summary):
    return plots.figures(summary)


def test_every_figure_is_drawn_named_and_described(found):
    assert [one.title for one in found] == [
        "Before and after",
        "Changes, question by question",
        "Training loss",
        "At the gate: nDCG@10 against labels",
    ]
    for one in found:
        drawn = ElementTree.fromstring(one.svg)
        assert drawn.get("role") == "img"
        title, words = list(drawn)[:2]
        assert (title.tag.rpartition("}")[2], title.text) == ("title", one.title)
        assert words.text == one.words
        assert (drawn.get("aria-labelledby"), drawn.get("aria-describedby")) == (title.get("id"), words.get("id"))
        assert drawn.get("viewBox")
        assert not re.search(r"#[0-9a-f]{6}", one.svg)  # every colour is the page's
        assert "<text" in one.svg
        assert "http" not in one.svg.replace("http://www.w3.org/", "")
        assert one.rows


def test_no_two_elements_of_a_page_have_one_id(found):
    ids = [key for one in found for key in re.findall(r'\bid="([^"]*)"', one.svg)]
    assert len(ids) == len(set(ids))


def test_the_numbers_are_in_words_and_rows(found):
    metrics, changes, loss, gate = found
    assert metrics.rows[0][:2] == ("first stage", "ndcg@10")
    assert "4 questions helped, 4 hurt, 4 unchanged" in changes.words
    assert "from 1.900 to 1.500" in loss.words
    assert ("run 1", "3", "not a number") in loss.rows
    assert "Returned: mixture 0.5." in gate.words
    assert gate.rows[1][0] == "mixture 0.5"
    assert gate.rows[1][-1].startswith("+0.100")


def test_drawing_leaves_the_users_settings_alone(summary, found):
    with matplotlib.rc_context({"font.size": 33.0, "text.color": "#ff0000"}):
        shown = plots.figures(summary)
        assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["text.color"]) == (33.0, "#ff0000")
    assert [one.svg for one in shown] == [one.svg for one in found]


def test_what_cannot_be_drawn_stays_a_table(summary, monkeypatch, caplog):
    monkeypatch.setattr(plots, "_inline", lambda *_: 1 / 0)
    found = plots.figures(summary)
    assert {one.svg for one in found} == {""}
    assert all(one.rows for one in found)
    assert "Before and after could not be drawn (ZeroDivisionError" in caplog.text


def test_averaged_trainings_are_several_curves(tmp_path):
    training = {**report(comparison()).training, "losses": [3.0, 2.0, 1.0, 3.5, 2.5, 1.5], "runs": 2, "updates": 6}
    loss = plots.figures(read_summary(finished_run(tmp_path, training=training))[0])[2]
    assert [row[0] for row in loss.rows] == ["run 1"] * 3 + ["run 2"] * 3
    assert [row[1] for row in loss.rows] == ["1", "2", "3"] * 2
    assert "2 trainings, whose weights were averaged" in loss.words


def test_without_a_gate_losses_and_matplotlib(tmp_path, monkeypatch):
    training = {**report(comparison()).training, "losses": [None, None]}
    summary, _ = read_summary(finished_run(tmp_path, gate=None, training=training))
    assert [one.title for one in plots.figures(summary)] == ["Before and after", "Changes, question by question"]
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert {one.svg for one in plots.figures(summary)} == {""}


def test_a_name_in_a_figure_holds_no_control_character():
    assert plots.drawable_text("a\x1b[2Jb") == "a\\x1b[2Jb"
    assert plots.drawable_text("Küche") == "K?che"
