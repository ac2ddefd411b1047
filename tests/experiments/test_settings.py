"""An experiment's file: what it may say, and what is said of one that cannot be used."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from radio_dspy.optimizers.presets import LOCAL_PREFERENCES, LOCAL_TRAINING

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation.preferences.guards import FalseNegatives
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.training.settings import LoraSettings, TrainingSettings
from radio_dspy.experiments.declared import MOVED
from radio_dspy.experiments.loading import load_experiment, merged
from radio_dspy.experiments.materials import rationale_folder
from radio_dspy.experiments.records import hash_of_settings, is_done, record_path
from radio_dspy.experiments.settings import RationaleSource, RowSettings
from tests.conftest import ROOT

SHIPPED = sorted((ROOT / "examples" / "experiments").rglob("*.yaml"))
RUNS_OWN = {
    "seed",
    "device",
    "save_steps",
    "disable_tqdm",
    "report_to",
    "callbacks",
    "launcher",
    "save_adapter",
}  # no row sets these
PAPER = [path for path in SHIPPED if path.parent.name == "paper"]


def written(folder, rows="[{name: one}]", **further):
    lines = {"name": "tiny", "title": "Tiny", "question": "Does it run?", "seeds": "[1, 2]", **further, "rows": rows}
    path = folder / "tiny.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in lines.items() if value is not None))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_is_valid(path):
    experiment = load_experiment(path)
    assert experiment.question.endswith("?")
    assert all(row.settings.data.root is None for row in experiment.rows)


def test_ten_and_the_papers_four_are_shipped():
    assert len(PAPER) == 4
    assert len(SHIPPED) - len(PAPER) == 10
    assert len({load_experiment(path).name for path in SHIPPED}) == 14


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_settings_are_the_papers(path):
    (row,) = load_experiment(path).rows
    own = row.settings
    assert own.data.expected.passages == 21_015_324
    assert (own.first_stage.encoder, own.first_stage.candidates) == ("intfloat/e5-base-v2", 20)
    assert own.preferences == PreferenceSettings(candidates=50, sampling="shift", false_negatives=None)
    assert (own.reranker.checkpoint, own.teacher.encoder) == ("BAAI/bge-reranker-base", "BAAI/bge-m3")
    assert own.teacher.signals == {"rationale": 0.5, "retrieval": 0.5}
    assert own.rationale == RationaleSource(
        lm="openai/gpt-4o-mini", temperature=0.2, seed=42, max_tokens=1000, check=False
    )
    assert own.training == TrainingSettings(
        learning_rate=6e-5,
        num_train_epochs=2,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=4,
        max_length=512,
        precision="fp16",
    )
    assert own.generator.k == 5


def test_rows_are_defaults_and_what_they_change(tmp_path):
    path = written(
        tmp_path,
        "[{name: one}, {name: Two!, with: {teacher: {signals: {labels: 1}}, training: {num_train_epochs: 3}}}]",
        defaults="{training: {max_length: 64}, teacher: {depth: 5}}",
    )
    one, two = load_experiment(path).rows
    assert (one.settings.training.num_train_epochs, one.settings.training.max_length) == (2, 64)
    assert (two.settings.training.num_train_epochs, two.settings.training.max_length) == (3, 64)
    assert (two.settings.teacher.signals, two.settings.teacher.depth) == ({"labels": 1.0}, 5)
    assert two.slug == "two"


def test_set_holds_for_every_row_over_its_own(tmp_path):
    path = written(tmp_path, "[{name: one}, {name: two, with: {training: {num_train_epochs: 3}}}]")
    found = load_experiment(
        path, ["training.num_train_epochs=1", "seeds=[7]", "training.learning_rate=1e-4"], data=tmp_path
    )
    assert [row.settings.training.num_train_epochs for row in found.rows] == [1, 1]
    assert found.rows[0].settings.training.learning_rate == 1e-4
    assert found.seeds == [7]
    assert found.rows[0].settings.data.root == str(tmp_path)


def test_signals_are_replaced_as_a_whole():
    assert merged({"signals": {"a": 1}, "x": {"b": 1}}, {"signals": {"c": 1}, "x": {"d": 2}}) == {
        "signals": {"c": 1},
        "x": {"b": 1, "d": 2},
    }


@pytest.mark.parametrize(
    ("rows", "sets", "message"),
    [
        ("[{name: one, with: {training: {loss: x}}}]", [], "row 'one': training.loss: Input should be 'infonce'"),
        ("[{name: one, with: {training: {los: x}}}]", [], "training.los: no such key; there are averaged_runs"),
        ("[{name: one, with: {nothing: 1}}]", [], "nothing: no such key; there are cases, data, first_stage"),
        ("[{name: one, with: {teacher: {signals: {magic: 1}}}}]", [], "teacher.signals.magic: Input should be"),
        ("[{name: one, with: {teacher: {signals: {labels: 2}}}}]", [], "less than or equal to 1, got 2"),
        ("[{name: one, with: {teacher: {signals: {}}}}]", [], "teacher.signals: Dictionary should have at least 1"),
        ("[{name: one, with: {method: off-the-shelf}}]", [], "needs reranker.other"),
        ("[{name: one, with: {reranker: {architecture: cross-encoder}}}]", [], "or tower='both'"),
        ("[{name: one, with: {data: {corpus: c.jsonl}}}]", [], "data: a corpus file needs 'train'"),
        ("[{name: one, with: {generator: {likelihood: 9, task: choice}}}]", [], "needs generator.task: qa"),
        ("[{name: one, with: {metrics: [ndcg]}}]", [], "metrics.0: String should match pattern"),
        ("[{name: one, with: 7}]", [], "rows[0].with: needs keys with values, got 7"),
        ("[{nam: one}]", [], "rows[0]: needs 'name'"),
        ("[]", [], "rows: needs a list of rows"),
        ("[{name: a b}, {name: a-b}]", [], "rows need different names"),
        ("[{name: one}]", ["epochs"], "--set needs key=value"),
        (
            "[{name: one}]",
            ["training.num_train_epochs=0"],
            "num_train_epochs must be a whole number of at least 1, got 0",
        ),
        ("[{name: one}]", ["seeds=x"], "seeds: Input should be a valid list, got 'x'"),
        ("[{name: one}]", ["name=A B"], "name: String should match pattern"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, rows, sets, message):
    with pytest.raises(SettingsError) as caught:
        load_experiment(written(tmp_path, rows), sets)
    assert message in str(caught.value)
    if not message.startswith("--set"):
        assert str(tmp_path / "tiny.yaml") in str(caught.value)


def test_a_key_of_the_experiment_that_is_none_is_named(tmp_path):
    with pytest.raises(
        SettingsError, match="seed: no such key; there are defaults, name, question, rows, seeds, title"
    ):
        load_experiment(written(tmp_path, seed="1"))


@pytest.mark.parametrize(("text", "message"), [("a: [", "not YAML"), ("- 1", "needs keys with values")])
def test_a_file_that_is_none(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_experiment(tmp_path / "x.yaml")


def test_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match=r"x\.yaml: cannot be read"):
        load_experiment(tmp_path / "x.yaml")


def test_every_row_runs_with_every_seed_and_what_no_seed_changes_once(tmp_path):
    experiment = load_experiment(written(tmp_path, "[{name: one}, {name: words, with: {method: bm25}}]"))
    assert [(row.name, seed) for row, seed in experiment.runs()] == [("one", 1), ("words", 1), ("one", 2)]
    assert [row.name for row, _ in experiment.runs(["wor"])] == ["words"]
    assert [seed for _, seed in experiment.runs(["one"], [5])] == [5]
    assert [(row.name, seed) for row, seed in experiment.runs(seeds=[2])] == [("one", 2)]  # "words" has its only run
    assert [(row.name, seed) for row, seed in experiment.runs(seeds=[5, 6])] == [("one", 5), ("words", 5), ("one", 6)]
    with pytest.raises(SettingsError, match="no seed changes these rows; they run with seed 1 alone"):
        list(experiment.runs(["words"], [2]))
    with pytest.raises(SettingsError, match="the rows are 'one', 'words'"):
        list(experiment.runs(["three"]))


def test_what_decides_a_result_names_no_folder(tmp_path):
    row = load_experiment(written(tmp_path), data=tmp_path).rows[0]
    assert str(tmp_path) not in json.dumps(row.settings.decisive())


def test_rows_that_answer_differently_share_their_training(tmp_path):
    answered = "{generator: {lm: local}, data: {shuffle_test: true}}"
    rows = f"[{{name: a}}, {{name: b, with: {answered}}}, {{name: c, with: {{training: {{num_train_epochs: 1}}}}}}]"
    a, b, c = (row.settings.trained_by() for row in load_experiment(written(tmp_path, rows)).rows)
    assert a == b != c


@pytest.mark.parametrize("weight", ["yes", "on", "true", "no"])
def test_a_weight_is_a_number(weight, tmp_path):
    """YAML reads these words as truth values, which were taken for 1 and 0."""
    rows = f"[{{name: a, with: {{teacher: {{signals: {{labels: {weight}}}}}}}}}]"
    with pytest.raises(SettingsError, match="signals: needs something other than true or false"):
        load_experiment(written(tmp_path, rows))
    (row,) = load_experiment(written(tmp_path, rows.replace(weight, "1"))).rows
    assert row.settings.teacher.signals == {"labels": 1.0}


def test_defaults_are_those_of_the_local_preset():
    assert (RowSettings().training, RowSettings().preferences) == (LOCAL_TRAINING, LOCAL_PREFERENCES)


@pytest.mark.parametrize(
    ("part", "kind", "of_a_run"),
    [("training", TrainingSettings, RUNS_OWN), ("preferences", PreferenceSettings, set())],
    ids=["training", "preferences"],
)
def test_a_part_has_the_fields_of_its_dataclass(tmp_path, part, kind, of_a_run):
    """Names, defaults and checks are declared there alone."""
    with pytest.raises(SettingsError) as caught:
        load_experiment(written(tmp_path), [f"{part}.nothing=1"])
    told = str(caught.value).partition("there are ")[2].partition(".")[0]
    assert set(told.split(", ")) == {one.name for one in fields(kind)} - of_a_run


def test_what_a_dataclass_holds_may_be_given_too(tmp_path):
    sets = ["preferences={negative_range: [3, 9], false_negatives: {absolute_margin: 0.1}}", "training.lora={rank: 8}"]
    own = load_experiment(written(tmp_path), [*sets, "training.tower=both"]).rows[0].settings
    assert own.preferences.negative_range == (3, 9)
    assert own.preferences.false_negatives == FalseNegatives(absolute_margin=0.1)
    assert own.training.lora == LoraSettings(rank=8)
    kept = json.loads(json.dumps(own.decisive()))
    assert kept["preferences"] == {
        "negative_range": [3, 9],
        "false_negatives": {"with_answer": True, "same_text": True, "absolute_margin": 0.1},
    }
    assert kept["training"]["lora"]["rank"] == 8
    assert kept["sampling"]["guards"] is True


OLD = """{
  first_stage: {training_candidates: 10},
  sampling: {groups: shift, random_negatives: 3, in_batch_negatives: true, guards: false, confident_share: 0.5},
  training: {epochs: 1, groups_per_step: 4, accumulation_steps: 2},
}"""
NEW = """{
  preferences: {candidates: 10, sampling: shift, random_negatives: 3, false_negatives: null, confident_share: 0.5},
  rationale: {check: false},
  training: {num_train_epochs: 1, per_device_train_batch_size: 4, gradient_accumulation_steps: 2,
    in_batch_negatives: true},
}"""


def test_keys_of_the_first_release_are_read_with_a_warning(tmp_path):
    with pytest.warns(DeprecationWarning, match="has moved") as caught:
        old = load_experiment(written(tmp_path, defaults=OLD))
    said = {str(one.message).partition("defaults: ")[2] for one in caught}
    assert said == {f"{before} has moved: give {now}." for before, now in MOVED.items()}
    assert old == load_experiment(written(tmp_path, defaults=NEW))
    kept = old.rows[0].settings.decisive()
    assert kept["sampling"] == {
        "groups": "shift", "random_negatives": 3, "in_batch_negatives": True, "guards": False, "confident_share": 0.5,
    }  # fmt: skip
    assert "preferences" not in kept
    assert "check" not in kept["rationale"]


def test_an_old_key_of_a_row_overrides_a_new_one_of_the_defaults(tmp_path):
    rows = "[{name: one, with: {sampling: {guards: true}}}]"
    with pytest.warns(DeprecationWarning, match="has moved"):
        (row,) = load_experiment(written(tmp_path, rows, defaults="{preferences: {false_negatives: null}}")).rows
    assert row.settings.preferences.false_negatives == FalseNegatives()


def test_an_old_key_beside_its_new_one_is_refused(tmp_path):
    rows = "[{name: one, with: {training: {epochs: 1, num_train_epochs: 2}}}]"
    with (
        pytest.warns(DeprecationWarning, match="has moved"),
        pytest.raises(SettingsError, match=r"training\.num_train_epochs is given"),
    ):
        load_experiment(written(tmp_path, rows))


def test_every_record_of_this_repository_is_found_again():
    """No row runs again because a name moved."""
    records = ROOT / "docs" / "results"
    found = {
        path
        for experiment in map(load_experiment, SHIPPED)
        for row, seed in experiment.runs()
        if is_done(path := record_path(records, experiment, row, seed), row.settings.decisive())
    }
    assert found == set(records.rglob("*.json"))
    assert len(found) == 186


def test_trainings_and_rationales_keep_their_folders():
    """Their names are hashes of settings: under other names they would be trained and paid for again."""
    rows = {
        row.name: row.settings
        for row in load_experiment(ROOT / "examples" / "experiments" / "1-does-it-help.yaml").rows
    }
    assert hash_of_settings(rows["EntailmentBank"].trained_by()) == "bd5d48ddc93e75d8"
    (paper,) = load_experiment(PAPER[2]).rows
    assert hash_of_settings(paper.settings.trained_by()) == "25f22fa0585e24bc"
    assert rationale_folder(Path("out"), paper.settings) == Path("out/rationales/f85200b020b3b1e1")
