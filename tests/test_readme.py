"""What the README shows is run as it is written."""

import json
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def row(example) -> str:
    metadata = {"supporting_ids": example.relevant}
    return json.dumps(
        {"id": example.id, "question": example.question, "golden_answers": example.answers, "metadata": metadata}
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_readmes_example_runs_as_written(topic, tmp_path):
    corpus = [json.dumps({"id": one.id, "contents": one.contents}) for one in topic.passages]
    (tmp_path / "corpus.jsonl").write_text("\n".join(corpus))
    (tmp_path / "train.jsonl").write_text("\n".join(map(row, topic.train[:6])))
    (tmp_path / "dev.jsonl").write_text("\n".join(map(row, topic.test)))
    block, later = python_blocks()
    script = block + "\nprint('RELOADED', aligned.rerank('why?', passages[:3]).passages[0].id)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 used" in done.stdout
    assert "rationales: 6 written" in done.stdout
    assert "RELOADED kit" in done.stdout
    assert {"rationales.jsonl", "groups.jsonl", "report.json"} <= {
        one.name for one in (tmp_path / "runs" / "first").iterdir()
    }
    assert (tmp_path / "aligned" / "reranker" / "model.safetensors").is_file()
    done = subprocess.run([sys.executable, "-c", later], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_readme_names_only_files_that_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / link).is_file(), link
    assert "@@" not in text
