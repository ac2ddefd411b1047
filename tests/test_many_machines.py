"""The scripts of examples/many_machines with two processes: the same groups, and the same losses within rounding."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from radio_dspy.distillation import PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.rerankers import RerankerWeights
from tests.conftest import ROOT
from tests.stub_servers import StubServer

SCRIPTS = ROOT / "examples" / "many_machines"
TWO = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
SETTINGS = TrainingSettings(num_train_epochs=2, learning_rate=1e-4, per_device_train_batch_size=3, max_length=64)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(processes: int, script: str, *arguments: object) -> str:
    """Run a script as its reader would; each run has a response cache of its own."""
    launcher = TWO if processes == 2 else []
    own = {"DSPY_CACHEDIR": tempfile.mkdtemp(), "HF_DATASETS_CACHE": tempfile.mkdtemp(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory, topic) -> Path:
    """A corpus and questions as files."""
    folder = tmp_path_factory.mktemp("work")
    passages = [{"id": one.id, "contents": one.contents} for one in topic.passages]
    questions = [{"id": one.id, "question": one.question, "golden_answers": one.answers} for one in topic.train[:13]]
    for name, rows in (("corpus", passages), ("train", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory, small) -> str:
    """The small encoder without dropout, so that `train_reranker` can be compared with."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("base") / "encoder"
    model = SentenceTransformer(small.name)
    model[0].auto_model.config.hidden_dropout_prob = 0.0
    model[0].auto_model.config.attention_probs_dropout_prob = 0.0
    model.save_pretrained(str(folder), create_model_card=False)
    return str(folder)


@pytest.fixture(scope="module")
def groups(work, base, topic) -> dict[int, Path]:
    """Index and groups, made by one process and by two; the LM is asked over HTTP."""
    answers = {one.question: one.answers[0] for one in topic.train}

    def brain(prompt: str) -> str:
        asked = next(question for question in answers if question in prompt)
        return f"[[ ## rationale ## ]]\nIt comes down to {answers[asked]}.\n\n[[ ## completed ## ]]"

    made = {}
    for processes in (1, 2):
        folder = work / str(processes)
        run(processes, "encode.py", work / "corpus.jsonl", folder / "index", "--encoder", base, "--block", 8)
        arguments = [folder / "index", work / "train.jsonl", folder / "groups", "--encoder", base, "--block", 3]
        arguments += ["--lm", "openai/gpt-4o-mini"]
        with StubServer(brain) as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_BASE", f"{server.url}/v1")
            patch.setenv("OPENAI_API_KEY", "none")
            done = Counter(run(processes, "prefer.py", *arguments).split()[1::3])
            assert done == ({"0:": 5} if processes == 1 else {"0:": 3, "1:": 2})
            assert len(server.asked) == len({one.prompt for one in server.asked}) == 13
            if processes == 2:  # one process goes on from the blocks that two made, and buys nothing again
                (folder / "groups" / "000001.jsonl").unlink()
                assert run(1, "prefer.py", *arguments).count("process") == 1
                assert len(server.asked) == 13
        made[processes] = folder / "groups.jsonl"
    return made


def losses(processes: int, groups: Path, base: str) -> list[float]:
    output = groups.with_name(f"reranker-{processes}")
    settings = ["--epochs", SETTINGS.num_train_epochs, "--learning-rate", SETTINGS.learning_rate]
    settings += ["--groups-per-step", SETTINGS.per_device_train_batch_size, "--max-length", SETTINGS.max_length]
    base_of = ["--base", base, "--architecture", "bi-encoder"]
    run(processes, "train.py", groups, output, *base_of, *settings)
    assert RerankerWeights(str(output), "bi-encoder").fingerprint != RerankerWeights(base, "bi-encoder").fingerprint
    return json.loads(output.with_name(f"{output.name}-losses.json").read_text(encoding="utf-8"))


def test_two_processes_make_the_same_index_and_groups_byte_for_byte(groups):
    one, two = (groups[processes].parent for processes in (1, 2))
    assert len((one / "groups.jsonl").read_text(encoding="utf-8").splitlines()) > 7
    for name in ("groups.jsonl", "index/index.faiss", "index/passages.jsonl", "index/manifest.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_two_processes_have_the_losses_of_train_reranker(groups, base, tmp_path):
    rows = map(json.loads, groups[1].read_text(encoding="utf-8").splitlines())
    texts = [PreferenceGroup(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}) for row in rows]
    weights = RerankerWeights(base, "bi-encoder")
    expected = train_reranker(weights, texts, tmp_path / "out", SETTINGS).losses
    assert len(texts) % 3 == 1  # the last update of an epoch has one group: the second process has none
    assert losses(2, groups[2], base) == pytest.approx(expected, rel=1e-4, abs=1e-5)
