import dataclasses
import json

from radio_dspy.distillation.gate.decision import Gate, decide
from radio_dspy.reporting.report import Report, RerankerReport

FIRST = RerankerReport(
    reranker="self.rerank",
    groups=8,
    training={"architecture": "bi-encoder", "base": "some/model", "updates": 2, "first_loss": 1.9, "last_loss": 1.5},
    left_out={"contains an answer": 4, "same text": 1},
)
REPORT = Report(
    metrics={
        "first_stage": {"ndcg@10": 0.40, "mrr": 0.3},
        "base": {"ndcg@10": 0.41, "mrr": 0.3},
        "aligned": {"ndcg@10": 0.5, "mrr": 0.4},
    },
    questions={"train": 10, "used": 8, "skipped": {"without an answer": 2}, "judged": 5},
    rationales={
        "given": 0, "reused": 1, "written": 7, "cached": 2, "refused": 1, "empty": 1, "retried": 3,
        "useless": {"answer missing": 2, "refusal": 1},
    },
    rerankers=[FIRST],
    relevance="answers",
    seconds={"retrieval": 1.25},
    spending={
        "rationales": {
            "calls": 9, "cached": 2, "failed": 1, "prompt_tokens": 70, "completion_tokens": 30, "cost": 0.0125,
        },
        "signals": {
            "calls": 3, "cached": 0, "failed": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": None,
        },
    },
    run_dir="runs/first",
)  # fmt: skip


def first(**changes):
    """The report with another account of the reranker."""
    return dataclasses.replace(REPORT, rerankers=[dataclasses.replace(FIRST, **changes)])


def test_every_count_is_shown():
    text = str(REPORT)
    for part in (
        "5 held-out questions, relevant: passages that contain an answer",
        "aligned against base: +0.090 nDCG@10",
        "8 of 10 used, skipped: 2 without an answer",
        "Returned what was trained: there was no gate.",
        "7 written (2 from the cache, 1 refused, 3 asked twice), 1 reused, 0 given",
        "LM calls, rationales: 9 (1 failed), 2 cached, 70 + 30 tokens, $0.0125",
        "LM calls, signals: 3 (0 failed), 0 cached, 0 + 0 tokens, price unknown",
        "guided by the answer alone: 1 without a rationale, 3 with a useless one (2 answer missing, 1 refusal)",
        "8 groups, negatives left out: 4 contains an answer, 1 same text; 2 updates, loss 1.900 -> 1.500, "
        "bi-encoder from some/model",
        "retrieval 1.2",
        "runs/first",
    ):
        assert part in text
    assert text.count("0.410") == 1
    assert "no gain" not in text


def test_no_gain_and_no_judgement_are_said():
    worse = dataclasses.replace(REPORT, metrics={**REPORT.metrics, "aligned": {"ndcg@10": 0.39, "mrr": 0.3}})
    assert "-0.020 nDCG@10  (a loss: see docs/troubleshooting.md)" in str(worse)
    blind = dataclasses.replace(REPORT, questions={**REPORT.questions, "judged": 0})
    assert "nothing could be judged" in str(blind)
    nothing = dataclasses.replace(REPORT, metrics={row: {"ndcg@10": 0.0, "mrr": 0.0} for row in REPORT.metrics})
    assert "no candidate contains an answer, so that the table says nothing" in str(nothing)


BASE = [0.5, 0.5, 0.4, 0.6, 0.3, 0.7, 0.5, 0.2, 0.1, 0.5]
GATE = decide(
    {0.0: BASE, 0.5: [one + 0.125 for one in BASE], 1.0: [one - 0.0625 for one in BASE]},
    "nDCG@10 against labels",
    Gate(),
).as_dict()


def test_the_gate_shows_every_candidate_and_what_it_decided():
    text = str(first(gate=GATE))
    assert "Returned the mixture 0.5 weights: nDCG@10 against labels 0.430 -> 0.555 (+0.125" in text
    assert "there was no gate" not in text
    assert "at the gate (10 questions)" in text
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert "+0.125" in rows["mixture 0.5"]
    assert "+0.125 to +0.125" in rows["mixture 0.5"]
    assert "-0.062" in rows["trained"]
    assert "0.430" in rows["base"]
    assert "+0." not in rows["base"]  # it has no gain over itself


def test_further_rerankers_are_told_of():
    other = RerankerReport("self.second", 5, training={}, gate=GATE)
    third = dataclasses.replace(other, reranker="self.third", gate=None)
    text = str(dataclasses.replace(REPORT, rerankers=[FIRST, other, third]))
    assert f"self.second: 5 groups. {GATE['sentence']}" in text
    assert "self.third: 5 groups. Returned what was trained: there was no gate." in text


def test_a_training_whose_loss_never_was_a_number():
    stopped = {**REPORT.training, "first_loss": None, "last_loss": None, "updates": 1}
    text = str(first(training=stopped))
    assert "1 updates, loss not a number, " in text


def test_in_a_notebook_it_is_tables(tmp_path):
    hostile = {**GATE, "sentence": "<script>alert(1)</script>"}
    shown = dataclasses.replace(first(gate=hostile), run_dir=str(tmp_path))._repr_html_()
    assert shown.startswith("<p>&lt;script&gt;alert(1)&lt;/script&gt;</p><table>")
    assert '<th scope="row">aligned reranker</th><td>0.500</td><td>0.400</td>' in shown
    assert '<th scope="row">mixture 0.5</th><td>0.555</td>' in shown
    assert "report.html" not in shown  # there is none
    (tmp_path / "report.html").write_text("")
    assert f"More in {tmp_path / 'report.html'}" in dataclasses.replace(REPORT, run_dir=str(tmp_path))._repr_html_()


def test_the_report_is_json():
    report = first(gate=GATE)
    read = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert read["metrics"]["aligned"]["mrr"] == 0.4
    assert Report.from_dict(read) == report


def test_where_no_lm_was_asked_there_are_no_lines_of_zeros():
    counts = {**dict.fromkeys(REPORT.rationales, 0), "empty": 8, "useless": {}}
    text = str(dataclasses.replace(REPORT, rationales=counts))
    assert "rationales: none, every question is guided by its answer alone" in text
    assert "0 written" not in text
