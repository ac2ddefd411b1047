"""Training in other processes: in two of accelerate's launcher it has the losses of one; an engine is told the same."""

import os

import pytest

from radio_dspy.core.errors import DataError, RadioError, SettingsError
from radio_dspy.distillation import PreferenceGroup, TrainingSettings, align
from radio_dspy.distillation.training.launching import launch
from radio_dspy.runs.run import Run

TWO = ("--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
GROUPS = [
    PreferenceGroup(f"why is jug {i} cold?", f"Vapour {i}.", (f"Jug {i} is old.", "Ice.", f"Red {i}.")[: 1 + i % 3])
    for i in range(13)
]
FAST = {"num_train_epochs": 2, "learning_rate": 1e-3, "max_length": 32, "per_device_train_batch_size": 3}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")


class Engine:
    """An engine whose one process is this one."""

    trainers = 1

    def train(self, work, job):
        work(job)


def test_an_engine_is_given_the_job(without_dropout, tmp_path):
    here, there = (
        align(without_dropout, GROUPS, Run(tmp_path / name), TrainingSettings(**FAST, tower="query"), engine=engine)
        for name, engine in (("here", None), ("there", Engine()))
    )
    assert here.training.losses == there.training.losses
    assert here.weights.fingerprint == there.weights.fingerprint


def test_what_fails_on_an_engine_is_an_error_here(without_dropout, tmp_path):
    with pytest.raises(RadioError, match="listwise loss reads the teacher's scores"):
        launch(without_dropout, GROUPS, tmp_path / "out", TrainingSettings(loss="listwise"), engine=Engine())
    with pytest.raises(RadioError, match="give a run_dir on storage that all machines see"):
        launch(without_dropout, GROUPS, tmp_path / "no" / "run" / "out", TrainingSettings(), engine=Engine())
    with pytest.raises(SettingsError, match="get settings as JSON"):
        launch(without_dropout, GROUPS, tmp_path / "out", TrainingSettings(callbacks=(object(),)), engine=Engine())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "settings",
    [{"tower": "query"}, {"gradient_accumulation_steps": 3, "eval_steps": 1, "num_train_epochs": 4}],
    ids=str,
)
def test_two_processes_have_the_losses_of_one(without_dropout, tmp_path, settings):
    one, two = (
        align(without_dropout, GROUPS, Run(tmp_path / str(number)), TrainingSettings(**{**FAST, **settings, **more}))
        for number, more in enumerate(({}, {"launcher": TWO}))
    )
    assert two.training.losses == pytest.approx(one.training.losses, abs=1e-4)
    assert len(two.training.losses) == len(one.training.losses) >= 4
    assert two.training.checkpoint.is_dir()
    assert not list((tmp_path / "1").glob("training-*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_fails_there_is_an_error_here(without_dropout, tmp_path):
    with pytest.raises(RadioError, match="listwise loss reads the teacher's scores") as found:
        launch(without_dropout, GROUPS, tmp_path / "out", TrainingSettings(loss="listwise", launcher=TWO))
    assert not isinstance(found.value, DataError)
    with pytest.raises(RadioError, match="accelerate launch --no_such_option ended with 2"):
        launch(without_dropout, GROUPS, tmp_path / "out", TrainingSettings(launcher=("--no_such_option",)))
    assert not (tmp_path / "out").exists()
