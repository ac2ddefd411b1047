from radio_dspy import Passage, Ranking
from radio_dspy.core.html import html_table, paragraph, shortened, writable

EVIL = '<script>alert("x")</script> & \0 \ud800'


def test_nothing_that_stands_in_a_table_means_anything():
    shown = html_table(EVIL, [EVIL], [[EVIL, EVIL]]) + paragraph(EVIL)
    assert "<script" not in shown
    assert "\0" not in shown
    assert shown.encode()  # UTF-8 can write it
    assert shown.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp;") == 5


def test_lines_and_tabs_stay_and_other_controls_go():
    assert writable("a\tb\nc\rd") == "a\tb\nc\rd"
    assert writable("\x01\x7f\x9f\ufffe") == "\ufffd" * 4


def test_a_text_is_shortened_to_its_beginning():
    assert shortened("x" * 10, 10) == "x" * 10
    assert shortened("word " * 10, 11) == "word word…"


def test_a_ranking_is_a_table_in_a_notebook():
    shown = Ranking("why <b>?", (Passage("p1", EVIL, EVIL), Passage("p2", "Ice floats.")), (0.5, -2.0))._repr_html_()
    assert "why &lt;b&gt;?" in shown
    assert "<td>-2.000</td><td>p2</td><td></td><td>Ice floats.</td>" in shown
    assert "<script" not in shown
    assert "<table>" in Ranking("none?", (), ())._repr_html_()
