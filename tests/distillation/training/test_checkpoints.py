import json
import random
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from radio_dspy.core.errors import RunError, SettingsError
from radio_dspy.core.files import sha256_of
from radio_dspy.distillation import InfoNCE, PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.distillation.training.checkpoints import TENSORS, TrainingCheckpoints, remove_checkpoints, training_key
from radio_dspy.distillation.training.settings import LoraSettings
from radio_dspy.models.encoder import Encoder
from radio_dspy.models.files import weight_files
from radio_dspy.rerankers import RerankerWeights

GROUPS = [
    PreferenceGroup("why did the dough not rise?", "Yeast dies in hot water.", ("The dough was large.", "Rise early.")),
    PreferenceGroup("why is the jug cold?", "Vapour carries warmth away.", ("The jug is old.", "A cold day.")),
    PreferenceGroup("why do ships float?", "A body displaces its weight of water.", ("Ships sail.",)),
    PreferenceGroup("why does iron rust at sea?", "Salt water carries current.", ("Iron is mined.", "The sea.")),
]
FAST = {
    "num_train_epochs": 3,
    "learning_rate": 1e-4,
    "max_length": 32,
    "per_device_train_batch_size": 2,
}  # two updates an epoch

KEY = "0123456789abcdef"


class Killed(BaseException):
    """Stands in for a kill: nothing in training catches it."""


class Dying(TrainingCheckpoints):
    """Ends the training after the third update."""

    def due(self, updates):
        if updates == 3:
            raise Killed
        return super().due(updates)


def train(base, output, checkpoints=None, **settings):
    settings = TrainingSettings(**{**FAST, **settings})
    return train_reranker(base, GROUPS, output, settings, watch=True, checkpoints=checkpoints)


def contents(checkpoint):
    return {path.name: sha256_of(path) for path in weight_files(checkpoint)}


@pytest.fixture
def base(small):
    return RerankerWeights(small, "bi-encoder")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora": LoraSettings(rank=2)},
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ({"per_device_train_batch_size": 3}, {"tower": "query"}, {"in_batch_negatives": True})
        ),
    ],
    ids=str,
)
def test_a_killed_training_goes_on_and_ends_in_the_same_weights(tmp_path, folder, base, settings):
    whole = train(base, tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        train(base, tmp_path / "never", Dying(folder, KEY, 2), **settings)
    assert [one.name for one in folder.iterdir()] == [f"training-{KEY}-2"]
    assert {one.suffix for one in (folder / f"training-{KEY}-2").iterdir()} == {".safetensors", ".json"}
    random.seed(99)  # another process has other random states
    np.random.seed(99)
    torch.manual_seed(99)
    checkpoints = TrainingCheckpoints(folder, KEY, 100)
    again = train(base, tmp_path / "again", checkpoints, **settings)
    assert again.losses == whole.losses
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")
    remove_checkpoints(folder)
    assert not list(folder.iterdir())


def test_the_callers_random_states_stay(tmp_path, base):
    draws = []
    for number in range(2):
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
        if number:
            train(base, tmp_path / "out", num_train_epochs=1)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_ctrl_c_finishes_the_update_in_hand_and_saves(tmp_path, folder, base):
    class Interrupting(TrainingCheckpoints):
        def due(self, updates):
            if updates == 3:
                signal.raise_signal(signal.SIGINT)
            return False

    train(base, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(base, tmp_path / "never", Interrupting(folder, KEY, 100))
    assert len(list(folder.iterdir())) == 1
    train(base, tmp_path / "again", TrainingCheckpoints(folder, KEY))
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_a_checkpoint_fits_only_the_same_training(base, small):
    settings = TrainingSettings(**FAST)

    def key(weights=base, groups=GROUPS, watch=False, **other):
        return training_key(weights, groups, replace(settings, **other), watch=watch)

    prefixed = RerankerWeights(Encoder(small.name, query_prefix="query: "), "bi-encoder")
    other = [
        key(groups=GROUPS[:3]),
        key(groups=[replace(GROUPS[0], answers=("yeast",)), *GROUPS[1:]]),
        key(weights=RerankerWeights(small, "cross-encoder", new_head=True)),
        key(weights=prefixed),
        key(watch=True),
        key(num_train_epochs=4),
        key(seed=1),
        key(loss="margin"),
        key(loss=InfoNCE(0.5)),
        key(lora=LoraSettings(rank=2)),
    ]
    assert key() == key(RerankerWeights(small, "bi-encoder"))
    assert len({key(), *other}) == 1 + len(other)


@pytest.fixture(scope="module")
def underway(tiny, tmp_path_factory):
    """What two trainings that were killed have left, under one key."""
    found = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("underway")
        with pytest.raises(Killed):
            train(tiny, folder / "never", Dying(folder, KEY, 2), seed=seed)
        found.append(folder / f"training-{KEY}-2")
    return found


class TestDamage:
    """A checkpoint that is not what was written is an error, or the training starts again: it is never gone on with."""

    @pytest.fixture
    def base(self, tiny):
        return tiny

    @pytest.fixture
    def spoilt(self, underway, folder):
        return shutil.copytree(underway[0], folder / underway[0].name)

    def refuse(self, folder, base, tmp_path, message):
        with pytest.raises(RunError, match=rf"cannot be resumed \(.*{message}.*remove this folder"):
            train(base, tmp_path / "again", TrainingCheckpoints(folder, KEY), seed=1)
        assert not (tmp_path / "again").exists()

    @pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random.safetensors"])
    @pytest.mark.parametrize(
        "change",
        [
            None,
            lambda data: b"",
            lambda data: data[: len(data) // 2],
            lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        ],
        ids=["missing", "empty", "half", "a flipped bit"],
    )
    def test_a_file(self, spoilt, folder, base, tmp_path, name, change):
        path = spoilt / name
        path.write_bytes(change(path.read_bytes())) if change else path.unlink()
        self.refuse(folder, base, tmp_path, "")

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("model", lambda name, one: one * 1.01 if one.is_floating_point() else one),
            ("optimizer", lambda name, one: one[:1].contiguous() if one.ndim else one),
            ("optimizer", lambda name, one: None if name.endswith("exp_avg") else one),
            ("optimizer", lambda name, one: None),
            ("optimizer", lambda name, one: one.half()),
        ],
        ids=["other weights", "moments of another shape", "half the moments", "no moments", "moments in float16"],
    )
    def test_tensors(self, spoilt, folder, base, tmp_path, name, change):
        path = spoilt / f"{name}.safetensors"
        changed = {key: change(key, one) for key, one in load_file(path).items()}
        save_file({key: one for key, one in changed.items() if one is not None}, path)
        self.refuse(folder, base, tmp_path, "its files were changed")

    @pytest.mark.parametrize(
        "change",
        [
            lambda state: state["param_groups"][0].update(lr=1.0),
            lambda state: state["param_groups"][0].update(betas=[2.0, 2.0]),
            lambda state: state["param_groups"][0]["params"].reverse(),
            lambda state: state["schedule"].update(last_epoch=-5),
            lambda state: state["history"].reverse(),
            lambda state: state.pop("digest"),
        ],
        ids=["learning rate", "betas", "parameters", "schedule", "history", "no digest"],
    )
    def test_the_state(self, spoilt, folder, base, tmp_path, change):
        state = json.loads((spoilt / "state.json").read_text())
        change(state)
        (spoilt / "state.json").write_text(json.dumps(state))
        self.refuse(folder, base, tmp_path, "its files were changed")

    @pytest.mark.parametrize("name", [*(f"{one}.safetensors" for one in TENSORS), "state.json", "trainer_state.json"])
    def test_a_file_of_another_training(self, underway, spoilt, folder, base, tmp_path, name):
        shutil.copy(underway[1] / name, spoilt / name)
        self.refuse(folder, base, tmp_path, "belong to another training")

    def test_all_of_another_training(self, underway, folder, base, tmp_path):
        other = "f" * 16
        shutil.copytree(underway[0], folder / f"training-{other}-2")
        with pytest.raises(RunError, match="belong to another training"):
            train(base, tmp_path / "again", TrainingCheckpoints(folder, other), seed=1)

    @pytest.mark.parametrize("how", ["no state", "a file more", "an earlier release's"])
    def test_what_is_no_checkpoint_is_trained_again(self, spoilt, folder, base, tmp_path, how):
        whole = train(base, tmp_path / "whole", seed=1)
        if how == "no state":
            (spoilt / "state.json").unlink()
        elif how == "a file more":
            (spoilt / "mine.txt").write_text("a note")
        else:
            (spoilt / "trainer_state.json").unlink()
        again = train(base, tmp_path / "again", TrainingCheckpoints(folder, KEY, 100), seed=1)
        assert again.losses == whole.losses
        assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_a_number_of_updates_must_be_one(folder):
    with pytest.raises(SettingsError, match="at least 1, or None; got 0"):
        TrainingCheckpoints(folder, KEY, 0)


def test_what_is_not_of_a_training_is_left_alone(base, folder, tmp_path):
    (folder / ".training-state").mkdir()
    (folder / ".training-state" / "notes.txt").write_text("mine")
    train(base, tmp_path / "out", TrainingCheckpoints(folder, KEY, every=1))
    assert (folder / ".training-state" / "notes.txt").read_text() == "mine"
    remove_checkpoints(folder)
    (folder / f"training-{KEY}-1").mkdir()
    (folder / f"training-{KEY}-1" / "mine").touch()
    with pytest.raises(RunError, match="holds something else; move it away"):
        train(base, tmp_path / "again", TrainingCheckpoints(folder, KEY, every=1))
    assert {path.name for path in folder.iterdir()} == {".training-state", f"training-{KEY}-1"}
