import pytest
from radio_dspy.optimizers.presets import hosted_preset, local_preset

import radio_dspy as radio
from radio_dspy.core.errors import SettingsError
from tests.settings import radio_of


@pytest.mark.parametrize("hybrid", [False, True])
def test_the_local_preset_trains_and_can_be_changed(index, topic, hybrid):
    first_stage = radio.HybridRetriever([radio.BM25Retriever(index.passages), index]) if hybrid else index
    preset = {**local_preset(first_stage), "epochs": 1, "max_length": 32}
    student = radio.RetrieveRerankAnswer(first_stage, radio.Rerank(index.encoder, "bi-encoder"), candidates=8)
    optimizer = radio_of(rationale_lm=False, **preset, candidates=8, gate=False)
    aligned = optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
    assert aligned.rerank.weights.passage_checkpoint is not None  # the index stays valid: its side was left alone
    assert radio.aligned_retriever(aligned).encoder.identity == index.encoder.identity


def test_the_local_preset_needs_vectors(index):
    with pytest.raises(SettingsError, match="local_preset needs a retriever that searches by vectors"):
        local_preset(radio.BM25Retriever(index.passages))


def test_the_local_presets_signals_have_weights(index):
    preset = local_preset(index)
    assert {one.name: weight for one, weight in preset["signals"].items()} == {
        "rationale": 0.25,
        "answer": 0.25,
        "retrieval": 0.5,
    }


def test_a_preset_leaves_to_the_user_how_many_calls_are_in_flight(index):
    assert radio.RADIO(rationale_lm=False, num_threads=16, **local_preset(index)).num_threads == 16


def test_the_hosted_preset_is_what_radio_takes(small):
    optimizer, plain = radio_of(**hosted_preset(small)), radio_of()
    assert optimizer.training == plain.training
    assert optimizer.preferences == plain.preferences
    assert (optimizer.signals, optimizer.rationales) == (plain.signals, plain.rationales)
    assert optimizer.encoder.identity == small.identity
