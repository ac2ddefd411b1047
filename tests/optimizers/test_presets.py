from radio_dspy.optimizers.presets import hosted_preset, local_preset

import radio_dspy as radio
from radio_dspy.experiments.settings import SamplingSettings, TrainSettings


def test_the_local_preset_trains_and_can_be_changed(index, topic):
    preset = {**local_preset(index), "epochs": 1, "max_length": 32}
    student = radio.RetrieveRerankAnswer(index, radio.Rerank(index.encoder, "bi-encoder"), candidates=8)
    optimizer = radio.RADIO(rationale_lm=None, **preset, candidates=8, gate=False, show_progress=False)
    aligned = optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
    assert aligned.rerank.weights.passage_checkpoint is not None  # the index stays valid: its side was left alone
    assert radio.aligned_retriever(aligned).encoder.identity == index.encoder.identity


def test_the_local_preset_trains_as_the_experiments_do_on_which_it_rests(index):
    preset, training = local_preset(index), TrainSettings().model_dump()
    shared = preset.keys() & training.keys()
    assert shared == {"tower", "epochs", "learning_rate", "max_length", "groups_per_step", "accumulation_steps"}
    assert {name: preset[name] for name in shared} == {name: training[name] for name in shared}
    assert preset["sampling"] == SamplingSettings().groups
    assert {one.name: weight for one, weight in preset["signals"].items()} == {
        "rationale": 0.25,
        "answer": 0.25,
        "retrieval": 0.5,
    }


def test_the_hosted_preset_is_what_radio_takes(small):
    optimizer, plain = radio.RADIO(**hosted_preset(small)), radio.RADIO()
    assert optimizer.training == plain.training
    assert optimizer.grouping == plain.grouping
    assert (optimizer.signals, optimizer.rationale_weight) == (plain.signals, plain.rationale_weight)
    assert optimizer.encoder.identity == small.identity
