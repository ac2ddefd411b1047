"""Every example is readable on its own and runs as it stands."""

import ast
import importlib.util
import json
import os
import subprocess
import sys

import dspy
import pytest
from dspy.utils import DummyLM

from radio_dspy.lm import local as lms
from tests.conftest import ROOT
from tests.settings import radio_of

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
# What an example prints when all of it ran.
PRINTS = {
    "agent_with_reranking_tool": [
        "10 held-out questions",
        "The reranker learnt from the questions themselves.",
        "a stand-in with a fixed script drives the agent",
        "<- holds the answer",
        "answers (a stand-in has no answer)",
    ],
    "from_flagembedding": ["by sentence-transformers"],
    "own_lm_and_encoder": ["20 questions to learn from, 10 to judge by", "10 held-out questions", "-> ", "read: "],
    "prompts_and_reranker": ["before: ", "between: ", "after: "],
    "stock_rag": ["before: ", "after: ", "saved and loaded: True"],
    "quickstart": ["10 held-out questions", "-> "],
}


# An example with a scripted LM in place of the local one, and a small encoder by the name of all-MiniLM-L6-v2.
QUICKLY = """
import contextlib, pathlib, runpy, sys
import pytest, radio_dspy
from tests.conftest import REPLIES, give_by_name, scripted
give_by_name(pathlib.Path(sys.argv[1]), pytest.MonkeyPatch())
radio_dspy.local_lm = lambda **_: contextlib.nullcontext(scripted(**REPLIES))
sys.argv[:] = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(name: str, *arguments: str, encoder: str | None = None) -> str:
    """Run an example as its reader would, offline, or with stand-ins for its models, and give what it printed."""
    quickly = ["-c", QUICKLY, encoder] if encoder else []
    done = subprocess.run(
        [sys.executable, *quickly, ROOT / "examples" / f"{name}.py", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(name: str):
    """An example's functions, without running it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_it_is_and_how_to_run_it(name):
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    description = ast.get_docstring(tree) or ""
    assert f"python examples/{name}.py" in description
    assert "radio-dspy[local]" in description  # what it needs
    assert "minute" in description  # how long it takes
    assert len(text.splitlines()) < 150  # read in one sitting
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)][-1] == "main"


def test_every_example_has_something_to_print():
    assert PRINTS.keys() == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, small):
    printed = run(name, encoder=None if name == "quickstart" else small.name)
    for words in PRINTS[name]:
        assert words in printed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_own_lm_and_encoder_takes_other_models_and_files(small, topic, tmp_path):
    example = load("own_lm_and_encoder")
    example.write_small_set(tmp_path)
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert {row["id"] for row in map(json.loads, lines)} == {one.id for one in topic.train}
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:4]), encoding="utf-8")
    models = ["--lm", str(lms._packaged_model()), "--encoder", small.name]
    prefixes = ["--query-prefix", "query: ", "--passage-prefix", "passage: "]
    printed = run("own_lm_and_encoder", *models, *prefixes, "--data", str(tmp_path), "--ask", "Why is the bread flat?")
    assert "4 questions to learn from, 10 to judge by, LM radio-local-" in printed
    assert "Why is the bread flat?\n-> " in printed


def test_an_agent_that_an_lm_can_drive_learns_from_its_own_queries(index, small, topic, tmp_path):
    """What the agent's example does with a hosted LM."""
    example = load("agent_with_reranking_tool")
    librarian = example.Librarian(index, small)
    train, held_out = topic.train[:4], topic.test[:2]
    queries = {one.id: " ".join(one.question.split()[-4:]) for one in [*train, *held_out]}

    def step(tool: str, **arguments: str) -> dict[str, str]:
        return {"next_thought": "so", "next_tool_name": tool, "next_tool_args": json.dumps(arguments)}

    lm = DummyLM(
        {"observation_0": {**step("finish"), "reasoning": "r", "answer": "a"}}
        | {one.question: step("search", query=queries[one.id]) for one in [*train, *held_out]}
    )
    optimizer = radio_of(
        epochs=1,
        learning_rate=1e-3,
        max_length=64,
        gate=False,
        false_negatives=None,
        check=False,
        run_dir=tmp_path,
    )
    with dspy.context(lm=lm):
        aligned = optimizer.compile(librarian, trainset=train, valset=held_out)
    assert optimizer.report.questions["recorded"]
    groups = [json.loads(line) for line in (tmp_path / "groups.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["query"] for one in groups] == [queries[one.id] for one in train]
    assert aligned.rerank.weights.checkpoint != librarian.rerank.weights.checkpoint


def test_the_agents_stand_in_shows_what_the_tool_gave(index, small, topic, capsys):
    example = load("agent_with_reranking_tool")
    asked = topic.test[0]
    librarian = example.Librarian(index, small)
    best = librarian.rerank(asked.question, index(asked.question, k=20).passages).passages
    example.show(librarian, asked, example.stand_in(asked.question), {best[1].contents})
    searched, *read, answered = capsys.readouterr().out.splitlines()
    assert searched == f"    searches {asked.question[:60]}..."
    assert [line.removeprefix("      reads ") for line in read] == [
        best[0].title,
        f"{best[1].title}  <- holds the answer",
        best[2].title,
    ]
    assert answered == "    answers (a stand-in has no answer)"
