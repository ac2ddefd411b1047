"""A reranker learns where nothing helps, leaves out what it ranks below, and does so after it was saved and loaded."""

import numpy as np
import pytest

import radio_dspy as radio
from radio_dspy.core.errors import SettingsError
from tests.settings import radio_of


class Odd:
    """Every other passage helps, and the null passage lies between those and the others."""

    name, reads_rationale, reads_null = "odd", False, True

    def score(self, requests):
        return [
            np.array([row % 2 if one.text else 0.5 for row, one in enumerate(request.candidates)], np.float32)
            for request in requests
        ]


@pytest.mark.parametrize(
    ("architecture", "tower"), [("cross-encoder", "both"), ("bi-encoder", "both"), ("bi-encoder", "query")]
)
def test_a_reranker_learns_where_nothing_helps(architecture, tower, index, small, topic, tmp_path):
    rerank = radio.Rerank(small, architecture, new_head=architecture == "cross-encoder", min_score="null")
    program = radio.RetrieveRerankAnswer(index, rerank, candidates=8, k=8)
    optimizer = radio_of(
        signals={Odd(): 1.0},
        null_passage=True,
        gate=False,
        candidates=8,
        epochs=1,
        learning_rate=5e-5,
        max_length=32,
        tower=tower,
        run_dir=tmp_path / "run",
    )
    aligned = optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
    groups = (tmp_path / "run" / "groups.jsonl").read_text()
    assert '"positive": "(null)"' in groups
    assert '"(null)"]' in groups, "and as a negative"
    passages = [*topic.passages[:8], ""]
    query = topic.test[0].question
    found = aligned.rerank(query, passages)
    (scores,) = aligned.rerank.score_lists([(query, [*(one.contents for one in topic.passages[:8]), ""])])
    assert sorted(found.indices) == [place for place, score in enumerate(scores) if score >= scores[-1]]
    loaded = radio.load(radio.save(aligned, tmp_path / "saved"), retriever=index)
    assert loaded.rerank.min_score == "null"
    assert loaded.rerank(query, passages).indices == found.indices


def test_a_teacher_that_knows_nothing_of_nothing_is_refused_at_once():
    with pytest.raises(SettingsError, match="null_passage=True needs a signal"):
        radio_of(null_passage=True)
