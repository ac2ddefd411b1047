import inspect

from radio_dspy.optimizers.presets import hosted_preset, local_preset

import radio_dspy as radio
from radio_dspy.cli import compile_


def test_the_local_preset_trains_and_can_be_changed(index, topic, tmp_path):
    preset = {**local_preset(index), "epochs": 1, "max_length": 32}
    student = radio.RetrieveRerankAnswer(index, radio.Rerank(index.encoder, "bi-encoder"), candidates=8)
    optimizer = radio.RADIO(rationale_lm=None, **preset, candidates=8, gate=False, show_progress=False)
    aligned = optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
    assert optimizer.training.epochs == 1
    assert aligned.rerank.weights.passage_checkpoint is not None  # the index stays valid: its side was left alone
    assert radio.aligned_retriever(aligned).encoder.identity == index.encoder.identity


def test_the_local_preset_is_what_the_command_line_takes(index):
    defaults = {name: one.default for name, one in inspect.signature(compile_).parameters.items()}
    preset = local_preset(index)
    for name in ("epochs", "learning_rate", "max_length", "sampling"):
        assert preset[name] == defaults[name], name


def test_the_hosted_preset_is_what_radio_takes(small):
    optimizer, plain = radio.RADIO(**hosted_preset(small)), radio.RADIO()
    assert optimizer.training == plain.training
    assert optimizer.grouping == plain.grouping
    assert {one.name: weight for one, weight in optimizer.signals.items()} == {"rationale": 0.5, "retrieval": 0.5}
    assert optimizer.num_threads == 16
