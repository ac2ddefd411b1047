"""The demo as users run it: minutes on two cores."""

import pytest

from radio_dspy import local_lm
from radio_dspy.cli.demonstration import run_demo


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_aligns_above_first_stage_and_base(tmp_path):
    with local_lm(max_tokens=48) as lm:
        result = run_demo(lm, seed=1, run_dir=tmp_path, show_progress=False)
    metrics = result.metrics
    assert metrics["aligned"]["ndcg@10"] > metrics["base"]["ndcg@10"]
    assert metrics["aligned"]["ndcg@10"] > metrics["first_stage"]["ndcg@10"]
    questions = result.report.questions
    assert questions["train"] + questions["judged"] == 160  # the gate's part of the training questions
    assert result.report.rationales["written"] == questions["train"]
    assert result.report.decision.startswith("Returned the ")
    assert result.after.ids[0] in result.request.relevant
    assert result.answer
