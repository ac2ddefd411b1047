"""Encoders and LM calls on a real Ray cluster: a head and two nodes, of which one is killed in each stage."""

import contextlib
import json
import logging
import shutil
import tempfile
import threading
import time
from collections import Counter

import dspy
import pytest
import torch
from safetensors.torch import load_file

import radio_dspy as radio
from radio_dspy.core.errors import BudgetError, LanguageModelError, SettingsError
from radio_dspy.distillation import TrainingSettings, align
from radio_dspy.distillation.rationales.extractor import RationaleExtractor
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness
from radio_dspy.distillation.teacher.signals import RationaleSimilarity
from radio_dspy.engines.pace import Pace
from radio_dspy.lm.budget import Ledger
from radio_dspy.models.encoder import BLOCK
from radio_dspy.runs.run import Run
from tests.distillation.training.conftest import random_encoder
from tests.distillation.training.test_launching import FAST, GROUPS
from tests.settings import radio_of
from tests.stub_servers import WRONG_KEY, StubServer

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
QUESTIONS = [(f"q{number}", f"Why is jug {number} cold?", [f"reason {number}"]) for number in range(60)]
SECONDS = 0.05  # that the LM takes


class Cluster:
    """A head without room for workers, and two nodes with one core each."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self.own = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
        self.nodes = [self.own.add_node(**NODE) for _ in range(2)]
        self.own.wait_for_nodes()
        ray.init(address=self.own.address, log_to_driver=False, logging_level=logging.ERROR)

    def kill_one(self) -> None:
        """As a machine goes: with all that runs on it. The one that has the most to do."""
        from ray._private.state import available_resources_per_node

        free = available_resources_per_node()
        busiest = min(self.nodes, key=lambda node: free[node.node_id].get("CPU", 0.0))
        self.nodes.remove(busiest)
        self.own.remove_node(busiest, allow_graceful=False)

    def close(self) -> None:
        import ray

        ray.shutdown()
        self.own.shutdown()


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets' names have a limit
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", short)
        made = Cluster()
        yield made
        made.close()
    shutil.rmtree(short, ignore_errors=True)


@pytest.fixture
def engine(cluster):
    with radio.RayEngine(encoders=2, cpus_per_encoder=0.4, askers=2, cpus_per_asker=0.1) as made:
        yield made


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory):
    return random_encoder(tmp_path_factory.mktemp("plain"), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@contextlib.contextmanager
def killing(cluster: Cluster, *moments) -> object:
    """Kill a node at each of the moments: as soon as what is given says so. Both nodes are there again afterwards."""
    killed = []

    def watch() -> None:
        for come in moments:
            end = time.monotonic() + 120
            while not come() and time.monotonic() < end:
                time.sleep(0.02)
            killed.append(come())
            cluster.kill_one()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        for _ in moments:
            cluster.nodes.append(cluster.own.add_node(**NODE))  # in the main thread, which alone may
    assert killed == [True] * len(moments)


class Stub(StubServer):
    """An LM that takes its time and counts what it was asked."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.counts: Counter[str] = Counter()

    def _reply(self, prompt: str) -> str:
        self.counts[prompt] += 1
        time.sleep(SECONDS)
        number = prompt.partition("jug ")[2].partition(" ")[0]
        return f"[[ ## rationale ## ]]\nIt is reason {number}.\n\n[[ ## completed ## ]]"


def lm_of(server: StubServer) -> dspy.LM:
    return dspy.LM("openai/gpt-4o-mini", api_base=f"{server.url}/v1", api_key="sk-MARKED-KEY", cache=False)


def written(lm: dspy.LM, run: Run, budget: radio.Budget | None = None) -> tuple[dict[str, str], int]:
    ledger = Ledger(budget)
    how = {"extractor": RationaleExtractor(), "given": {}, "show_progress": False, "num_threads": 8}
    with ledger.stage("rationales"):
        found = explain(QUESTIONS, run, lm=lm, **how)[0]
    return found, ledger.total.calls


@pytest.mark.parametrize(
    ("given", "problem"), [({"encoders": 0}, "at least 1"), ({"gpus_per_encoder": -1}, "at least 0"),
                           ({"calls_per_minute": 0}, "above 0"), ({"trainers": -1}, "at least 0")],
)  # fmt: skip
def test_settings_are_checked(given, problem):
    with pytest.raises(SettingsError, match=problem):
        radio.RayEngine(**given)


def test_calls_begin_at_one_rate():
    pace, began = Pace(6000), time.monotonic()
    for _ in range(11):
        pace.wait()
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize(
    ("given", "problem"),
    [({}, "give run_dir="), ({"launcher": ("--cpu",), "run_dir": "run"}, "give one of them"),
     ({"callbacks": (object(),), "run_dir": "run"}, "settings as JSON")],
)  # fmt: skip
def test_trainers_are_checked_before_anything_is_sent(index, small, topic, tmp_path, monkeypatch, given, problem):
    monkeypatch.chdir(tmp_path)
    student = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=6)
    optimizer = radio_of(engine=radio.RayEngine(trainers=2), **given)
    with pytest.raises(SettingsError, match=problem):
        optimizer.compile(student, trainset=topic.train[:4])


@pytest.mark.slow
@pytest.mark.timeout(280)
class TestCluster:
    def test_encoding_goes_on_where_a_node_is_killed_and_gives_the_same_bytes(self, cluster, engine, small):
        texts = [f"passage {number} tells of {number % 7} jugs and {number % 11} cats" for number in range(9 * BLOCK)]
        expected = small.encode_passages(texts)
        remote = engine.encoder(small)
        assert remote.encode_queries(texts[:3]).tobytes() == small.encode_queries(texts[:3]).tobytes()
        began = time.monotonic()
        with killing(cluster, lambda: time.monotonic() - began > 0.3):
            found = remote.encode_passages(texts)
        assert found.tobytes() == expected.tobytes()
        assert remote.identity == small.identity

    def test_an_index_from_files_is_the_same_folder(self, engine, small, topic, tmp_path):
        rows = [json.dumps({"id": one.id, "title": one.title, "text": one.text}) for one in topic.passages]
        (tmp_path / "corpus").mkdir()
        (tmp_path / "corpus" / "part-0.jsonl").write_text("\n".join(rows))
        radio.FaissRetriever.build(radio.load_corpus(tmp_path / "corpus"), small).save(tmp_path / "here")
        radio.FaissRetriever.build_from(tmp_path / "corpus", tmp_path / "there", small, engine=engine)
        files = sorted(one.name for one in (tmp_path / "here").iterdir())
        assert all((tmp_path / "here" / one).read_bytes() == (tmp_path / "there" / one).read_bytes() for one in files)

    def test_rationales_are_asked_once_but_for_those_in_flight_on_a_dead_node(self, cluster, engine, tmp_path):
        with Stub() as server:
            lm = engine.lm(lm_of(server))
            with killing(cluster, lambda: len(server.calls) > 20):
                found, calls = written(lm, Run(tmp_path / "run"))
            assert found == {key: f"It is reason {number}." for number, (key, _, _) in enumerate(QUESTIONS)}
            assert len(server.counts) == calls == len(QUESTIONS)
            assert sum(server.counts.values()) - len(QUESTIONS) <= 8  # those in flight
            asked = sum(server.counts.values())
            assert written(lm, Run(tmp_path / "run"))[0] == found
            assert sum(server.counts.values()) == asked  # kept

    def test_the_budget_holds_for_the_cluster(self, engine, tmp_path):
        with Stub() as server:
            with pytest.raises(BudgetError, match="max_calls=17"):
                written(engine.lm(lm_of(server)), Run(tmp_path), radio.Budget(max_calls=17))
            assert sum(server.counts.values()) == 17
            assert len(Run(tmp_path).read_records("rationales")) == 17

    def test_a_wrong_key_costs_one_call_and_is_not_told(self, engine, tmp_path):
        with Stub() as server:
            server.always = WRONG_KEY
            with pytest.raises(LanguageModelError, match="gpt-4o-mini failed") as error:
                written(engine.lm(lm_of(server)), Run(tmp_path))
            assert len(server.calls) == 1
            assert "MARKED" not in str(error.value)

    def test_a_compile_whose_nodes_are_killed_makes_the_groups_of_one_process(self, cluster, small, topic, tmp_path):
        answers = {one.question: one.answers[0] for one in topic.train}
        retriever = radio.FaissRetriever.build(topic.passages, small)
        student = radio.RetrieveRerankAnswer(retriever, radio.Rerank(small, "bi-encoder"), candidates=6)
        counts: dict[str, Counter[str]] = {"here": Counter(), "there": Counter()}
        here, there = (tmp_path / name for name in counts)
        with radio.RayEngine(
            encoders=2, cpus_per_encoder=0.2, askers=2, cpus_per_asker=0.1, trainers=1, cpus_per_trainer=0.3
        ) as engine:
            for name, where in (("here", None), ("there", engine)):

                def brain(prompt: str, seen: Counter[str] = counts[name]) -> str:
                    seen[prompt] += 1
                    time.sleep(0.02)
                    asked = next(question for question in answers if question in prompt)
                    field = "answer" if "[[ ## rationale ## ]]" not in prompt else "rationale"
                    return f"[[ ## {field} ## ]]\nIt comes down to {answers[asked]}.\n\n[[ ## completed ## ]]"

                with StubServer(brain) as server:
                    lm = lm_of(server)
                    signals = {RationaleSimilarity(small): 1.0, AnswerCorrectness(lm, num_threads=4): 1.0}
                    optimizer = radio_of(
                        lm, signals=signals, engine=where, run_dir=tmp_path / name, num_threads=4, candidates=6,
                        num_train_epochs=1, max_length=64,
                    )  # fmt: skip
                    moments = [
                        lambda: any("[[ ## rationale ## ]]" not in prompt for prompt in list(counts["there"])),
                        lambda: (there / "training.jsonl").exists(),  # the gate
                    ]
                    with killing(cluster, *(moments if where else [])):
                        optimizer.compile(student, trainset=topic.train[:16], valset=topic.test[:8])
        assert (here / "groups.jsonl").read_bytes() == (there / "groups.jsonl").read_bytes()
        weights = [sorted(one.name for one in folder.glob("reranker-*")) for folder in (here, there)]
        assert weights[0] == weights[1]
        assert counts["here"].keys() == counts["there"].keys()
        assert counts["there"].total() - counts["here"].total() <= 4  # those in flight

    def test_training_goes_on_from_its_checkpoint_where_a_node_is_killed(self, cluster, without_dropout, tmp_path):
        settings = TrainingSettings(
            **{**FAST, "num_train_epochs": 100, "learning_rate": 1e-4, "save_steps": 10, "disable_tqdm": True}
        )
        here = align(without_dropout, GROUPS, Run(tmp_path / "here"), settings).training
        run = Run(tmp_path / "there")

        def under_way() -> bool:
            return any(run.path.glob("training-*-*"))

        with radio.RayEngine(trainers=2, cpus_per_trainer=0.4) as engine, killing(cluster, under_way):
            there = align(without_dropout, GROUPS, run, settings, engine=engine).training
        assert there.losses == pytest.approx(here.losses, abs=1e-4)
        own, other = (load_file(one.checkpoint / "model.safetensors") for one in (here, there))
        assert all(torch.allclose(own[name], other[name], atol=1e-3) for name in own)
        assert not under_way()
