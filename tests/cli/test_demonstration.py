"""The demo as users run it, but for the minutes in which the local LM writes 128 rationales: those are recorded."""

import shutil

import pytest

from radio_dspy import local_lm
from radio_dspy.cli.demonstration import run_demo
from tests.conftest import SAMPLES


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_aligns_above_first_stage_and_base(tmp_path):
    shutil.copytree(SAMPLES / "run-demo", tmp_path / "run")
    with local_lm(max_tokens=48) as lm:
        result = run_demo(lm, seed=1, run_dir=tmp_path / "run", show_progress=False)
    metrics = result.metrics
    assert metrics["aligned"]["ndcg@10"] > metrics["base"]["ndcg@10"]
    assert metrics["aligned"]["ndcg@10"] > metrics["first_stage"]["ndcg@10"]
    questions = result.report.questions
    assert questions["train"] + questions["judged"] == 160  # the gate's part of the training questions
    # A changed prompt makes every run folder's rationales worthless: if that is meant, record these anew.
    assert result.report.rationales["reused"] == questions["train"]
    assert result.report.decision.startswith("Returned the ")
    assert result.after.ids[0] in result.request.relevant
    assert result.answer
