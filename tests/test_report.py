import dataclasses
import json

from radio_dspy.report import Report

REPORT = Report(
    metrics={
        "first_stage": {"ndcg@10": 0.40, "mrr": 0.3},
        "base": {"ndcg@10": 0.41, "mrr": 0.3},
        "aligned": {"ndcg@10": 0.5, "mrr": 0.4},
    },
    questions={"train": 10, "used": 8, "skipped": {"without an answer": 2}, "judged": 5},
    rationales={
        "given": 0, "reused": 1, "written": 7, "cached": 2, "refused": 1, "empty": 1, "lm_calls": 9,
        "prompt_tokens": 70, "completion_tokens": 30,
    },
    groups=8,
    training={"architecture": "bi-encoder", "base": "some/model", "updates": 2, "first_loss": 1.9, "last_loss": 1.5},
    relevance="answers",
    seconds={"retrieval": 1.25},
    run_dir="runs/first",
)  # fmt: skip


def test_every_count_is_shown():
    text = str(REPORT)
    for part in (
        "5 held-out questions, relevant: passages that contain an answer",
        "aligned against base: +0.090 nDCG@10",
        "8 of 10 used, skipped: 2 without an answer",
        "7 written in 9 LM calls (2 from the cache, 1 refused, 70 + 30 tokens), 1 reused, 0 given, 1 empty",
        "8 groups, 2 updates, loss 1.900 -> 1.500, bi-encoder from some/model",
        "retrieval 1.2",
        "runs/first",
    ):
        assert part in text
    assert text.count("0.410") == 1


def test_no_gain_and_no_judgement_are_said():
    worse = dataclasses.replace(REPORT, metrics={**REPORT.metrics, "aligned": {"ndcg@10": 0.39, "mrr": 0.3}})
    assert "-0.020 nDCG@10  (no gain: see docs/troubleshooting.md)" in str(worse)
    blind = dataclasses.replace(REPORT, questions={**REPORT.questions, "judged": 0})
    assert "nothing could be judged" in str(blind)


def test_the_report_is_json():
    assert json.loads(json.dumps(REPORT.as_dict()))["metrics"]["aligned"]["mrr"] == 0.4
