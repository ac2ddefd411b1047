import dspy
import pytest
from radio_dspy.optimizers.provenance import model_name, settings_of

from radio_dspy import Rerank
from radio_dspy.distillation import Gate, LoraSettings
from radio_dspy.distillation.losses import InfoNCE
from radio_dspy.models.files import fingerprint
from tests.conftest import scripted
from tests.settings import radio_of

FAST = {"epochs": 1, "learning_rate": 5e-5, "max_length": 32, "candidates": 8}


def test_every_training_adds_its_record(program, topic, small):
    optimizer = radio_of(gate=False, **FAST)
    first = optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
    second = optimizer.compile(first, trainset=topic.train[4:6], valset=topic.test[:2])
    assert program.rerank.weights.training == ()
    assert len(first.rerank.weights.training) == 1
    records = second.rerank.weights.training
    assert records[0] == first.rerank.weights.training[0]
    assert [one["questions"]["train"] for one in records] == [4, 2]
    assert records[0]["base"]["fingerprint"] == fingerprint(small.name)
    assert records[1]["base"]["fingerprint"] == first.rerank.weights.fingerprint
    assert records[1]["metrics"] == optimizer.report.metrics


def test_where_the_base_was_returned_nothing_is_added(program, topic):
    optimizer = radio_of(gate=Gate(mixtures=()), **FAST)  # two held-out questions decide nothing
    returned = optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
    assert optimizer.report.decision.startswith("Returned the base: 2 held-out questions are too few")
    assert returned.rerank.weights.dump_state() == program.rerank.weights.dump_state()


def test_it_survives_what_dspy_does_to_a_parameter(program, topic, tmp_path):
    aligned = radio_of(gate=False, **FAST).compile(program, trainset=topic.train[:2], valset=topic.test[:1])
    expected = aligned.rerank.weights.training
    for copied in (aligned.deepcopy(), aligned.reset_copy()):
        assert copied.rerank.weights.training == expected
    with dspy.context(lm=scripted(answer="heat")):
        bootstrapped = dspy.BootstrapFewShot(metric=lambda *_: True).compile(aligned, trainset=topic.train[:1])
    assert bootstrapped.rerank.weights.training == expected
    aligned.save(tmp_path / "state.json")
    program.load(tmp_path / "state.json")
    assert program.rerank.weights.training == expected


def test_each_reranker_has_a_record_of_its_own(index, small, topic):
    class Two(dspy.Module):
        def __init__(self):
            super().__init__()
            self.retriever = index
            self.first, self.second = Rerank(small, "bi-encoder"), Rerank(small, "bi-encoder", max_length=64)

        def forward(self, question):
            found = self.retriever(question, k=6)
            return self.second(question, self.first(question, found.passages).passages)

    optimizer = radio_of(gate=False, **FAST)
    aligned = optimizer.compile(Two(), trainset=topic.train[:4], valset=topic.test[:2])
    first, second = aligned.first.weights.training[0], aligned.second.weights.training[0]
    assert first["metrics"] == optimizer.report.metrics
    assert second["metrics"] == {}  # the report's rows are the first reranker's


def test_settings_are_json_and_objects_are_told_by_their_names(small):
    def halves(ids):
        return [(ids[0], ids[len(ids) // 2 :])]

    optimizer = radio_of(
        encoder=small,
        loss=InfoNCE(0.5),
        sampling=halves,
        false_negatives=None,
        check=False,
        lora=LoraSettings(rank=4),
        device="cpu",
    )
    settings = settings_of(optimizer.preferences, optimizer.training, optimizer.rationales)
    assert (settings["loss"], settings["sampling"], settings["guards"]) == ("InfoNCE", "halves", False)
    assert settings["lora"] == {"rank": 4, "alpha": 32, "dropout": 0.05, "target_modules": "all-linear"}
    assert "device" not in settings


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("openrouter/meta-llama/llama-3-8b", "openrouter/meta-llama/llama-3-8b"),
        ("hosted_vllm//srv/models/llama-3-8b", "hosted_vllm/llama-3-8b"),
        ("openai/./weights/model.gguf", "openai/model.gguf"),
        ("openai/~/weights/model.gguf", "openai/model.gguf"),
        ("openai/C:\\weights\\model.gguf", "openai/model.gguf"),
    ],
)
def test_a_model_named_by_its_file_loses_its_folders(model, name):
    assert model_name(dspy.LM(model)) == name


def test_an_lm_without_a_name_is_told_by_its_class():
    assert model_name(None) is None
    assert model_name(object()) == "object"
