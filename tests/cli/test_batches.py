"""`compile --batch`, interrupted while it waits, and `runs resume`, which fetches."""

import json

import pytest
from typer.testing import CliRunner

from radio_dspy.cli.app import app
from radio_dspy.lm.batch_apis import BatchAPI
from tests.stub_batches import BatchServer


def test_resume_fetches_the_batch_that_was_sent(topic, small, tmp_path, monkeypatch):
    questions = topic.train[:12]
    answers = {one.question: one.answers[0] for one in questions}

    def brain(prompt: str) -> str:
        asked = next(question for question in answers if question in prompt)
        return f"[[ ## rationale ## ]]\nIt comes down to {answers[asked]}.\n\n[[ ## completed ## ]]"

    def interrupt(self, batch: str) -> None:
        raise KeyboardInterrupt

    passages = [{"id": one.id, "contents": one.contents} for one in topic.passages]
    asked = [{"id": one.id, "question": one.question, "golden_answers": one.answers} for one in questions]
    for name, rows in (("corpus", passages), ("train", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = tmp_path / "run"
    command = ["compile", "--corpus", tmp_path / "corpus.jsonl", "--train", tmp_path / "train.jsonl", "--batch"]
    command += ["--encoder", small.name, "--reranker", small.name, "--lm", "openai/gpt-4o-mini", "--epochs", 1]
    command += ["--candidates", 10, "--run-dir", run, "--out", tmp_path / "out"]
    with BatchServer(brain) as server:
        monkeypatch.setenv("OPENAI_API_BASE", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BatchAPI, "results", interrupt)
            stopped = CliRunner().invoke(app, list(map(str, command)))
        assert stopped.exit_code == 130, stopped.output
        assert len(server.batches) == 1
        done = CliRunner().invoke(app, ["runs", "resume", str(run), "--yes"])
        assert done.exit_code == 0, done.output
        assert len(server.batches) == 1
        assert not server.calls
        assert set(server.bought.values()) == {1}
    assert (tmp_path / "out").is_dir()
    assert json.loads((run / "report.json").read_text())["spending"]["rationales"]["calls"] == len(server.bought)
