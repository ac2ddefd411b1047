"""What others wrote, on a terminal: nothing steers it, and people's scripts stay readable."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from radio_dspy.cli.app import app
from radio_dspy.core.terminal import printable
from radio_dspy.reporting.report import metrics_table

STEERING = {
    "colours": "\x1b[31mred",
    "a title": "\x1b]0;owned\x07",
    "backspaces": "good\b\b\b\bevil",
    "a carriage return": "evil\rgood",
    "C1": "\x9b2J",
    "an override": "a\u202etxt.exe",
    "an isolate": "a\u2066b\u2069",
    "no width": "ad\u200bmin",
    "a joiner in Latin": "ad\u200dmin",
    "a byte order mark": "a\ufeffb",
    "half a character": "a\ud800b",
    "a tag": "a\U000e0041b",
    "a separator of lines": "a\u2028b",
}


@pytest.mark.parametrize("text", STEERING.values(), ids=STEERING)
@pytest.mark.parametrize("lines", [True, False])
def test_what_would_steer_is_an_escape(text, lines):
    shown = printable(text, lines=lines)
    assert shown != text
    assert "\\" in shown
    assert printable(shown, lines=lines) == shown
    assert shown.encode()
    assert shown.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "Ice\tfloats.",
        "سلام، می\u200cخواهم\u200f.",  # noqa: RUF001
        "שלום",
        "ภาษา\u200bไทย",
        "क्\u200dष",
        "👩\u200d👩\u200d👧",
        "🏳️\u200d🌈",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "naïve, “quoted” 漢字",
    ],
)
def test_scripts_and_emoji_stay(text):
    assert printable(text) == text


def test_line_breaks_stay_where_a_text_has_lines():
    assert printable("a\r\nb\nc", lines=True) == "a\nb\nc"
    assert printable("a\nb") == "a\\nb"


@given(st.text())
def test_no_control_character_is_left(text):
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in printable(text).replace("\t", ""))


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[link=http://a.example]x[/link]", ":boom:"])
def test_names_in_a_table_are_no_markup(name):
    assert name in metrics_table({name: {name: 0.5}}, "title")


def test_a_hostile_run_folder_is_listed_and_shown_without_steering(tmp_path):
    run = tmp_path / "a\x1b[2Jb"
    run.mkdir()
    manifest = {"format": 1, "kind": "radio-dspy run", "release": "0.1.0", "settings": {"x\x9b": "\u202e\x07[/]"}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "log.jsonl").write_text(json.dumps({"time": "\x1b[31m", "event": "started", "why": "\b\b"}) + "\n")
    for command in (
        ["runs", "list", str(tmp_path)],
        ["runs", "show", str(run)],
        ["runs", "show", str(tmp_path / "\x1bx")],
    ):
        done = CliRunner().invoke(app, command)
        shown = done.output
        assert done.exit_code == (1 if command[-1].endswith("x") else 0), shown
        assert shown
        assert all(one.isprintable() or one == "\n" for one in shown)
