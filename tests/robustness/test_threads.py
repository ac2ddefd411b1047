"""One program in many threads, and two compiles on one machine, disturb each other in nothing."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers

import radio_dspy as radio
from radio_dspy.core.files import sha256_of
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.retrievers import FaissRetriever
from tests.conftest import ENCODER, ROOT, scripted

THREADS = 16


@pytest.mark.timeout(900)
@pytest.mark.parametrize("calls", [64, pytest.param(1000, marks=pytest.mark.slow)])
def test_calls_from_sixteen_threads_answer_as_one_thread_does(index, small, topic, calls):
    program = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=8, k=3)
    questions = [one.question for one in [*topic.train, *topic.test]]
    program.set_lm(scripted(answer="by evaporation"))

    def ask(number):
        found = program(question=questions[number % len(questions)])
        return found.answer, [passage.id for passage in found.passages], [round(one, 4) for one in found.scores]

    alone = [ask(number) for number in range(len(questions))]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(ask, range(calls)))
    assert len({json.dumps(one) for one in alone}) > len(questions) / 2  # else a mix-up could not be seen
    assert found == [alone[number % len(questions)] for number in range(calls)]


@pytest.mark.slow
def test_hundreds_of_calls_of_each_reranker_from_sixteen_threads(small, topic):
    passages = [one.contents for one in topic.passages[:6]]
    questions = [one.question for one in topic.train[:12]]
    for rerank in (radio.Rerank(small, "cross-encoder", new_head=True), radio.RationaleRerank(small)):

        def ask(number, rerank=rerank):
            query = questions[number % len(questions)]
            if isinstance(rerank, radio.Rerank):
                found = rerank(query=query, passages=passages)
            else:
                found = rerank(question=query, answers=["vapour"], rationale="It cools.", passages=passages)
            return [round(float(score), 4) for score in found.scores]

        alone = [ask(number) for number in range(len(questions))]
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(ask, range(192)))
        assert found == [alone[number % len(questions)] for number in range(192)]


COMPILE = """
import json, sys, dspy
import radio_dspy as radio
folder, encoder, run_dir, first = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
passages = radio.load_corpus(f"{folder}/corpus.jsonl")
train = radio.load_questions(f"{folder}/train.jsonl")[first : first + 8]
index = radio.FaissRetriever.build(passages, encoder=encoder)
student = radio.RetrieveRerankAnswer(index, radio.Rerank(encoder, "bi-encoder"), candidates=8)
optimizer = radio.RADIO(
    rationales={str(one.id): one.answers[0] for one in train}, run_dir=run_dir, epochs=1, max_length=32,
    preferences=radio.PreferenceSettings(candidates=8), gate=False,
)
aligned = optimizer.compile(student, trainset=train[:6], valset=train[6:])
print(json.dumps(aligned.rerank.weights.checkpoint))
"""


@pytest.mark.slow
def test_two_compiles_in_two_processes(topic, small, tmp_path):
    corpus = [{"id": one.id, "contents": one.contents} for one in topic.passages]
    train = [{"id": one.id, "question": one.question, "golden_answers": one.answers} for one in topic.train]
    for name, rows in (("corpus", corpus), ("train", train)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def start(run, first):
        command = [sys.executable, "-c", COMPILE, str(tmp_path), small.name, str(tmp_path / run), str(first)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    def outcome(process, run):
        out, error = process.communicate()
        assert process.returncode == 0, error
        checkpoint = json.loads(out.splitlines()[-1])
        return (tmp_path / run / "groups.jsonl").read_bytes(), sha256_of(Path(checkpoint) / "model.safetensors")

    alone = [outcome(start(f"alone-{first}", first), f"alone-{first}") for first in (0, 4)]
    both = [start(f"both-{first}", first) for first in (0, 4)]
    found = [outcome(process, f"both-{first}") for process, first in zip(both, (0, 4), strict=True)]
    assert found == alone
    assert alone[0] != alone[1]


def test_two_compiles_in_two_threads_give_the_weights_that_each_gives_alone(topic, tmp_path):
    """Random numbers, models, settings and patches of the process are shared; nothing of it may reach the other."""
    encoder = random_encoder(tmp_path / "encoder")
    passages = FaissRetriever.build(topic.passages, encoder)

    def compiled(run, seed):
        student = radio.RetrieveRerankAnswer(passages, radio.Rerank(encoder, "bi-encoder"), candidates=8)
        train = topic.train[seed : seed + 8]
        optimizer = radio.RADIO(
            rationales={str(one.id): one.answers[0] for one in train},
            run_dir=tmp_path / run,
            preferences=radio.PreferenceSettings(candidates=8),
            training=radio.TrainingSettings(per_device_train_batch_size=2, disable_tqdm=True),
            epochs=3,
            max_length=32,
            gate=False,
            seed=seed,
        )
        aligned = optimizer.compile(student, trainset=train[:6], valset=train[6:])
        checkpoint = Path(aligned.rerank.weights.checkpoint)
        return (tmp_path / run / "groups.jsonl").read_bytes(), sha256_of(checkpoint / "model.safetensors")

    alone = [compiled(f"alone-{seed}", seed) for seed in (0, 4)]
    for turn in range(2):
        started = threading.Barrier(2)

        def beside(seed, turn=turn, started=started):
            started.wait()
            return compiled(f"both-{turn}-{seed}", seed)

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(beside, (0, 4))) == alone
    assert alone[0] != alone[1]


def random_encoder(folder):
    """Random weights that train in a tenth of a second, with dropout."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    with quiet_loading():
        transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(radio.weights(ENCODER)).save_pretrained(folder)
    return radio.Encoder(str(folder))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_child_forked_after_use_encodes_and_searches(topic, tmp_path):
    """OpenMP's threads do not survive a fork; torch and FAISS waited for them without end."""
    random_encoder(tmp_path / "encoder")
    code = f"""
import os
import radio_dspy as radio
passages = [radio.Passage(str(i), f"passage {{i}} of several words, and of a few more") for i in range(64)]
index = radio.FaissRetriever.build(passages, encoder={str(tmp_path / "encoder")!r})
rerank = radio.Rerank({str(tmp_path / "encoder")!r}, "bi-encoder")
def use():
    return len(rerank("why?", index("which passage?", k=50).passages).passages)
use()
child = os.fork()
if child == 0:
    os._exit(use())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.strip() == "50", done.stderr
