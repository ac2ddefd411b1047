import random
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from radio_dspy.distillation import InfoNCE, TextGroup, TrainingSettings, train_reranker
from radio_dspy.distillation.checkpoints import TrainingCheckpoints, remove_checkpoints, training_key
from radio_dspy.distillation.settings import LoraSettings
from radio_dspy.errors import SettingsError
from radio_dspy.files import sha256_of
from radio_dspy.model_files import weight_files
from radio_dspy.rerankers import RerankerWeights

GROUPS = [
    TextGroup("why did the dough not rise?", "Yeast dies in hot water.", ("The dough was large.", "Rise early.")),
    TextGroup("why is the jug cold?", "Vapour carries warmth away.", ("The jug is old.", "A cold day.")),
    TextGroup("why do ships float?", "A body displaces its weight of water.", ("Ships sail.",)),
    TextGroup("why does iron rust at sea?", "Salt water carries current.", ("Iron is mined.", "The sea.")),
]
FAST = {"epochs": 3, "learning_rate": 1e-4, "max_length": 32, "groups_per_step": 2}  # two updates an epoch


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
    return train_reranker(base, GROUPS, output, settings, watch=True, checkpoints=checkpoints, show_progress=False)


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
            for one in ({"groups_per_step": 3}, {"tower": "query"}, {"in_batch_negatives": True})
        ),
    ],
    ids=str,
)
def test_a_killed_training_goes_on_and_ends_in_the_same_weights(tmp_path, folder, base, settings):
    whole = train(base, tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        train(base, tmp_path / "never", Dying(folder, "k", 2), **settings)
    assert [one.name for one in folder.iterdir()] == ["training-k-2"]
    assert {one.suffix for one in (folder / "training-k-2").iterdir()} == {".safetensors", ".json"}
    random.seed(99)  # another process has other random states
    np.random.seed(99)
    torch.manual_seed(99)
    checkpoints = TrainingCheckpoints(folder, "k", 100)
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
            train(base, tmp_path / "out", epochs=1)
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
        train(base, tmp_path / "never", Interrupting(folder, "k", 100))
    assert len(list(folder.iterdir())) == 1
    train(base, tmp_path / "again", TrainingCheckpoints(folder, "k"))
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_a_checkpoint_fits_only_the_same_training(base, small):
    settings = TrainingSettings(**FAST)

    def key(weights=base, groups=GROUPS, watch=False, **other):
        return training_key(weights, groups, replace(settings, **other), watch=watch)

    prefixed = RerankerWeights(small, "bi-encoder")
    prefixed.query_prefix = "query: "
    other = [
        key(groups=GROUPS[:3]),
        key(groups=[replace(GROUPS[0], answers=("yeast",)), *GROUPS[1:]]),
        key(weights=RerankerWeights(small, "cross-encoder")),
        key(weights=prefixed),
        key(watch=True),
        key(epochs=4),
        key(seed=1),
        key(loss="margin"),
        key(loss=InfoNCE(0.5)),
        key(lora=LoraSettings(rank=2)),
    ]
    assert key() == key(RerankerWeights(small, "bi-encoder"))
    assert len({key(), *other}) == 1 + len(other)


def test_a_number_of_updates_must_be_one(folder):
    with pytest.raises(SettingsError, match="at least 1, or None; got 0"):
        TrainingCheckpoints(folder, "k", 0)
