"""What rows share is found, checked and made once."""

import dspy
import pytest

from radio_dspy.core.errors import SettingsError
from radio_dspy.experiments.materials import Materials, halved, located
from radio_dspy.experiments.methods import training_folder
from radio_dspy.experiments.settings import DataSettings, RationaleSource, RowSettings


def test_a_hosted_lm_samples_as_the_file_says(tmp_path):
    with Materials(tmp_path) as materials:
        lm = materials.lm("openai/gpt-4o-mini", DataSettings(), max_tokens=1000, temperature=0.2, seed=42)
        assert lm is materials.lm("openai/gpt-4o-mini", DataSettings(), max_tokens=1000, temperature=0.2, seed=42)
        assert materials.lm("none", DataSettings(), max_tokens=1) is None
    assert (lm.kwargs["temperature"], lm.kwargs["max_tokens"], lm.kwargs["seed"]) == (0.2, 1000, 42)


def test_weights_may_lie_in_the_datas_folder(tmp_path):
    with Materials(tmp_path) as materials, pytest.raises(SettingsError, match=r"larger\.gguf: no such file below"):
        materials.lm("larger.gguf", DataSettings(root=str(tmp_path)), max_tokens=1)


def test_the_bundled_set_is_known_by_its_content(tmp_path):
    with Materials(tmp_path) as materials:
        hashes = materials.hashes(RowSettings())
        questions = materials.questions(RowSettings(data=DataSettings(train_questions=5, test_questions=3)))
    assert set(hashes) == {"passages.jsonl", "questions.jsonl"}
    assert all(len(one) == 16 for one in hashes.values())
    assert (len(questions.train), len(questions.test), questions.held_out) == (5, 3, [])


def test_an_lms_weights_are_known_by_their_content_where_they_are_here(tmp_path):
    settings = RowSettings.model_validate({"data": {"root": str(tmp_path)}, "generator": {"lm": "larger.gguf"}})
    with Materials(tmp_path) as materials:
        without = materials.hashes(settings)
        (tmp_path / "larger.gguf").write_bytes(b"weights")
        found = materials.hashes(settings)
    assert set(found) - set(without) == {"larger.gguf"}
    # Who answers decides nothing about the training, who explains does.
    assert training_folder(tmp_path, settings, 1, found) == training_folder(tmp_path, settings, 1, without)
    explained = settings.model_copy(update={"rationale": RationaleSource(lm="larger.gguf")})
    assert training_folder(tmp_path, explained, 1, found) != training_folder(tmp_path, explained, 1, without)


def test_a_gate_needs_questions_that_are_not_learnt_from(tmp_path):
    settings = RowSettings.model_validate({"data": {"train_questions": 160}, "gate": {"by": "labels"}})
    with Materials(tmp_path) as materials, pytest.raises(SettingsError, match="needs questions beyond the first 160"):
        materials.questions(settings)


def test_a_half_does_not_depend_on_the_others():
    questions = [dspy.Example(id=f"q{number}") for number in range(40)]
    first, second = halved(questions)
    assert len(first) + len(second) == 40
    assert min(len(first), len(second)) > 8
    assert halved(questions[::2]) == ([one for one in first if one in questions[::2]],
                                      [one for one in second if one in questions[::2]])  # fmt: skip


def test_a_file_is_looked_for_below_the_root(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    assert located(DataSettings(root=str(tmp_path)), "a.jsonl") == tmp_path / "a.jsonl"
    with pytest.raises(SettingsError, match="with --data FOLDER"):
        located(DataSettings(root=str(tmp_path)), "b.jsonl")
