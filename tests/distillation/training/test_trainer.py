"""What comes with transformers' Trainer: callbacks, loggers, the best step, adapters."""

import sys
from dataclasses import replace
from itertools import chain

import pytest
import torch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainerCallback

from radio_dspy.core.errors import MissingExtraError, SettingsError
from radio_dspy.core.files import sha256_of
from radio_dspy.distillation import PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.distillation.training.batches import DealtGroups
from radio_dspy.distillation.training.checkpoints import TrainingCheckpoints
from radio_dspy.distillation.training.settings import LoraSettings
from radio_dspy.distillation.training.trainer import _ranked
from tests.settings import tracked

GROUPS = [
    PreferenceGroup(
        f"why is jug {i} cold?", f"Vapour {i}.", (f"Jug {i} is old.", "Ice.", f"Red {i}."), (1, 0.5, 0, 0.2)
    )
    for i in range(24)
]
FAST = {"num_train_epochs": 2, "learning_rate": 1e-3, "max_length": 32, "per_device_train_batch_size": 2}
KEY = "0123456789abcdef"


class Seen(TrainerCallback):
    """Keeps what loggers get."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **_):
        self.logs.append(dict(logs))

    def values(self, name):
        return [one[name] for one in self.logs if name in one]


def train(base, output, checkpoints=None, watch=False, **settings):
    settings = TrainingSettings(disable_tqdm=True, **{**FAST, **settings})
    return train_reranker(base, GROUPS, output, settings, watch=watch, checkpoints=checkpoints)


def digest(folder):
    return sha256_of(folder / "model.safetensors")


# Groups among processes


@pytest.mark.parametrize(("groups", "size", "accumulation"), [(13, 3, 2), (8, 2, 4), (5, 16, 1), (1, 2, 1)])
@pytest.mark.parametrize("processes", [2, 3])
def test_an_update_has_the_same_groups_whatever_the_number_of_processes(groups, size, accumulation, processes):
    def updates(rank, of):
        dealt = DealtGroups(groups, size, accumulation, 7, rank, of)
        dealt.set_epoch(1)
        passes, steps = list(dealt), -(-accumulation // of)  # as Trainer counts
        assert len(passes) == len(dealt)
        assert all(len(one) <= size for one in passes)
        return [list(chain(*passes[start : start + steps])) for start in range(0, len(passes), steps)]

    whole = updates(0, 1)
    parts = [updates(rank, processes) for rank in range(processes)]
    assert [sorted(chain(*one)) for one in zip(*parts, strict=True)] == [sorted(one) for one in whole]
    assert sorted(chain(*whole)) == list(range(groups))


def test_equal_scores_are_no_merit():
    assert _ranked([0.0, 0.0, 0.0]) == ["2", "1", "0"]
    assert _ranked([0.5, float("nan"), 2.0]) == ["2", "0", "1"]


# Judging on a part of the training questions


def test_the_curve_is_of_questions_that_are_not_trained_on(tiny, tmp_path):
    seen = Seen()
    result = train(tiny, tmp_path / "out", eval_steps=3, callbacks=[seen], warmup_steps=4)
    learned = len(GROUPS) - 10  # at least ten are judged by
    assert result.updates == len(result.losses) == 2 * -(-learned // 2)
    assert seen.values("loss") == pytest.approx(result.losses)
    rates = seen.values("learning_rate")
    assert rates[0] == 0
    assert rates.index(max(rates)) == 4
    assert max(rates) == pytest.approx(1e-3)
    assert len(seen.values("eval_ndcg@10")) == -(-result.updates // 3)
    assert all(0 < one <= 1 for one in seen.values("eval_ndcg@10"))


class Ruining(TrainerCallback):
    """Multiplies the learning rate from an update on, and keeps the judged weights."""

    def __init__(self, after):
        self.after, self.weights = after, {}

    def on_step_end(self, args, state, control, optimizer=None, model=None, **_):
        self.weights[state.global_step] = {name: one.clone() for name, one in model.reranker.state_dict().items()}
        if state.global_step >= self.after:
            for group in optimizer.param_groups:
                group["lr"] = 1e3


@pytest.mark.parametrize("watch", [False, True])
def test_what_is_ruined_ends_with_the_best_steps_weights(tiny, tmp_path, watch):
    ruining, seen = Ruining(after=5), Seen()
    settings = {"eval_steps": 2, "load_best_model_at_end": True, "callbacks": [ruining, seen], "num_train_epochs": 4}
    result = train(tiny, tmp_path / "out", watch=watch, **settings)
    assert result.stopped == ""
    curve = seen.values("eval_ndcg@10")
    best = 2 * (1 + curve.index(max(curve)))
    found = load_file(tmp_path / "out" / "model.safetensors")
    expected = ruining.weights[min(best, result.updates)]
    assert all(torch.equal(one, expected[f"0.model.{name}"]) for name, one in found.items())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out"]


def test_early_stopping_of_ones_own_ends_training(tiny, tmp_path):
    stopping = EarlyStoppingCallback(2)
    settings = {"eval_steps": 1, "load_best_model_at_end": True, "num_train_epochs": 9, "learning_rate": 1e-12}
    result = train(tiny, tmp_path / "out", callbacks=[stopping], **settings)
    assert result.updates == 3  # the first judgement, and two that are no better
    assert stopping.early_stopping_patience_counter == 2


class Killed(BaseException):
    """Stands in for a kill."""


class Dying(TrainingCheckpoints):
    def due(self, updates):
        if updates == 9:
            raise Killed
        return super().due(updates)


def test_a_killed_training_has_the_best_step_of_one_in_one_go(tiny, tmp_path):
    def how():
        return {"eval_steps": 2, "load_best_model_at_end": True, "callbacks": [EarlyStoppingCallback(3)]}

    run = tmp_path / "run"
    run.mkdir()
    whole = train(tiny, tmp_path / "whole", **how())
    with pytest.raises(Killed):
        train(tiny, tmp_path / "never", Dying(run, KEY, 7), **how())
    assert 1 <= len(list(run.iterdir())) <= 2  # the last one, and the best one
    again = train(tiny, tmp_path / "again", TrainingCheckpoints(run, KEY, 100), **how())
    assert again.losses == whole.losses
    assert digest(tmp_path / "again") == digest(tmp_path / "whole")


# Loggers


def test_mlflow_and_tensorboard_hold_the_curves(tiny, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)  # where MLflow keeps artifacts
    run = tmp_path / "run"
    run.mkdir()
    checkpoints = TrainingCheckpoints(run, KEY, 100)
    with tracked(f"sqlite:///{tmp_path}/mlflow.db"):
        result = train(tiny, tmp_path / "out", checkpoints, eval_steps=3, report_to=("mlflow", "tensorboard"))
        client = mlflow.MlflowClient()
        (found,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
        history = client.get_metric_history(found.info.run_id, "loss")
        assert [one.value for one in history] == pytest.approx(result.losses)
        assert len(client.get_metric_history(found.info.run_id, "eval_ndcg_10")) == -(-result.updates // 3)
    (place,) = {one.parent for one in run.rglob("events.out.tfevents*")}
    events = EventAccumulator(str(place)).Reload()
    assert [one.value for one in events.Scalars("train/loss")] == pytest.approx(result.losses, rel=1e-5)
    assert len(events.Scalars("eval/ndcg@10")) == -(-result.updates // 3)


def test_trackio_holds_the_curves(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    result = train(tiny, tmp_path / "out", eval_steps=3, report_to="trackio")
    (project,) = SQLiteStorage.get_projects()
    (name,) = SQLiteStorage.get_runs(project)
    lines = SQLiteStorage.get_logs(project, name)
    assert [one["train/loss"] for one in lines if "train/loss" in one] == pytest.approx(result.losses)
    assert len([one for one in lines if "eval/ndcg@10" in one]) == -(-result.updates // 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"report_to": "paper"}, "report_to must be of"),
        ({"load_best_model_at_end": True}, "needs eval_steps"),
        ({"eval_steps": 0}, "eval_steps must be a whole number of at least 1"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"save_adapter": "here"}, "adapters of lora="),
        ({"launcher": ("--cpu",), "callbacks": [Seen()]}, "get settings as JSON"),
    ],
    ids=lambda one: ", ".join(one) if isinstance(one, dict) else "",
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SettingsError, match=message):
        TrainingSettings(**settings)


def test_a_logger_that_is_not_installed_is_told_before_anything_is_paid_for(monkeypatch):
    monkeypatch.setattr("radio_dspy.distillation.training.settings.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        TrainingSettings(report_to="wandb")


def test_settings_that_came_later_leave_the_records_of_earlier_releases_as_they_are():
    plain = TrainingSettings().decisive()
    assert not {"warmup_steps", "eval_steps", "report_to", "callbacks", "launcher"} & plain.keys()
    free = TrainingSettings(report_to=("mlflow",), gradient_checkpointing=True, launcher=("--cpu",)).decisive()
    assert free == plain
    changed = TrainingSettings(eval_steps=3, callbacks=[Seen()]).decisive()
    assert {name: one for name, one in changed.items() if name not in plain} == {"eval_steps": 3, "callbacks": ["Seen"]}


# Memory and adapters


class Recomputing(TrainerCallback):
    """Keeps whether layers compute their activations again."""

    def on_step_begin(self, args, state, control, model=None, **_):
        self.found = any(getattr(one, "gradient_checkpointing", False) for one in model.modules())


def test_activations_that_are_computed_again_give_the_same_weights(tiny, tmp_path):
    for name in ("kept", "again"):
        own = Recomputing()
        train(tiny, tmp_path / name, gradient_checkpointing=name == "again", callbacks=[own])
        assert own.found == (name == "again")
    assert digest(tmp_path / "again") == digest(tmp_path / "kept")
    assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "kept" / "config.json").read_bytes()


def test_an_adapter_of_pefts_own_settings_is_merged_and_kept(tiny, tmp_path):
    peft = pytest.importorskip("peft")
    own = peft.LoraConfig(r=2, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear")
    train(tiny, tmp_path / "ours", lora=LoraSettings(rank=2))
    train(tiny, tmp_path / "theirs", lora=own, save_adapter=str(tmp_path / "adapter"))
    assert digest(tmp_path / "theirs") == digest(tmp_path / "ours")
    from transformers import BertModel

    model = peft.PeftModel.from_pretrained(BertModel.from_pretrained(tiny.checkpoint), tmp_path / "adapter")
    merged, expected = model.merge_and_unload().state_dict(), load_file(tmp_path / "theirs" / "model.safetensors")
    assert all(torch.allclose(one, expected[name], atol=1e-6) for name, one in merged.items() if name in expected)
    assert own.exclude_modules is None  # the user's object stays
    one, other = (TrainingSettings(lora=replace_rank(own, rank)).decisive() for rank in (2, 3))
    assert one != other


def test_an_adapter_takes_the_place_of_nothing(tiny, tmp_path):
    pytest.importorskip("peft")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    for number in (2, 3):
        train(tiny, tmp_path / f"{number}", lora=LoraSettings(rank=2), save_adapter=str(tmp_path / "mine"))
        assert (tmp_path / f"mine-{number}" / "adapter_model.safetensors").is_file()
    assert [(one.name, one.read_text()) for one in (tmp_path / "mine").iterdir()] == [("README.md", "mine")]


def replace_rank(config, rank):
    return replace(config, r=rank)


def test_without_peft_a_config_of_its_own_is_an_error_too(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match="LoRA needs peft"):
        train(tiny, tmp_path / "out", lora=LoraSettings())
