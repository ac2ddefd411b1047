"""What an experiment takes is said before it starts."""

import json

import pytest

from radio_dspy.experiments.loading import load_experiment
from radio_dspy.experiments.memory import model_size
from radio_dspy.experiments.plan import plan
from tests.conftest import ROOT, shared

SHIPPED = ROOT / "examples" / "experiments"
PAPER = sorted((SHIPPED / "paper").glob("*.yaml"))


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_settings_have_a_plan_without_any_data(path, tmp_path):
    found = plan(load_experiment(path), tmp_path)
    (row,) = found.rows
    assert row.train == (15_000 if path.stem == "2wikimultihopqa" else 20_000)
    rationales, answers = found.calls.stages
    assert (rationales.stage, rationales.calls) == ("rationales", row.train)
    assert 1 < rationales.cost < rationales.cost_at_most < 20
    assert (answers.calls, answers.cost) == (3 * row.test, None)
    assert found.memory["index"] == 21_015_324 * 768 * 4
    assert found.memory["generator, where it is served (16 bits)"] == pytest.approx(16e9, rel=0.01)
    text = str(found)
    assert "index: 64.6 GB" in text
    assert "not known to LiteLLM" in text
    assert "not here: " in text
    assert json.loads(json.dumps(found.as_dict()))["missing"] == list(found.missing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_has_a_plan(path, tmp_path):
    found = plan(load_experiment(path, data=shared("data", "entailmentbank").parent), tmp_path)
    assert all(row.train and row.test for row in found.rows)
    assert set(found.missing) == set()
    assert found.memory["index"] > 0
    assert None not in found.memory.values()


def test_questions_are_counted_and_shared_calls_counted_once(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n" * 7 + "\n")
    (tmp_path / "said.jsonl").write_text("{}\n" * 3)
    rationale = {"lm": "local", "file": "said.jsonl"}
    rows = [
        {"name": "a", "with": {"rationale": rationale}},
        {"name": "b", "with": {"rationale": rationale, "training": {"num_train_epochs": 1}}},
        {"name": "c", "with": {"teacher": {"signals": {"likelihood": 1}, "depth": 2}}},
        {"name": "d", "with": {"method": "lm-listwise"}},
        {"name": "e", "with": {"method": "base", "generator": {"lm": "local", "questions": 2}}},
        {"name": "f", "with": {"method": "base", "generator": {"lm": "local", "questions": 0, "likelihood": 3}}},
        {"name": "g", "with": {"method": "teacher", "teacher": {"depth": 3, "compared_with": "correctness"}}},
    ]
    data = {"corpus": "rows.jsonl", "train": "rows.jsonl", "test": "rows.jsonl"}
    content = {"name": "x", "title": "X", "question": "?", "seeds": [1, 2], "defaults": {"data": data}, "rows": rows}
    (tmp_path / "x.yaml").write_text(json.dumps(content))
    found = plan(load_experiment(tmp_path / "x.yaml", data=tmp_path), tmp_path / "none")
    assert [(row.train, row.test, row.seeds) for row in found.rows] == [(7, 7, 2)] * 3 + [(7, 7, 1)] * 4
    calls = {one.stage: one.calls for one in found.calls.stages}
    assert calls == {"rationales": 4, "signals": 14 + 21, "reranking": 21, "answers": 4 + 6}
    assert found.calls.cost == 0


def test_sizes_of_models():
    assert model_size("all-MiniLM-L6-v2") == (pytest.approx(22.7e6, rel=0.01), 384)
    assert model_size("somebody/not-here") == (None, None)
