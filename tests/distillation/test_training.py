import json
import shutil

import pytest
import torch

from radio_dspy.distillation import TextGroup, TrainingSettings, train_reranker
from radio_dspy.encoders import Encoder, fingerprint, weights
from radio_dspy.errors import DataError, RadioError, SettingsError
from radio_dspy.rerankers import Rerank, RerankerWeights
from tests.conftest import ENCODER

GROUPS = [
    TextGroup("why did the dough not rise?", "Yeast dies in hot water.", ("The dough was large.", "Rise early.")),
    TextGroup(
        "why is the jug cold?", "Vapour carries warmth away.", ("The jug is old.", "A cold day.", "Jugs cost more.")
    ),
    TextGroup("why do ships float?", "A body displaces its weight of water.", ("Ships sail.",)),
    TextGroup(
        "why does iron rust at sea?", "Salt water carries current between metals.", ("Iron is mined.", "The sea.")
    ),
]
FAST = {"learning_rate": 1e-4, "max_length": 32, "groups_per_step": 2}


@pytest.mark.parametrize("architecture", ["bi-encoder", "cross-encoder"])
def test_training_lowers_the_loss_and_reranks(tmp_path, architecture):
    base = RerankerWeights(ENCODER, architecture)
    before = base.fingerprint
    settings = TrainingSettings(epochs=12, **FAST)
    result = train_reranker(base, GROUPS, tmp_path / "out", settings, show_progress=False)
    assert result.updates == len(result.losses) == 24
    assert sum(result.losses[-4:]) < 0.7 * sum(result.losses[:4])
    assert base.fingerprint == before
    rerank = Rerank(str(tmp_path / "out"), architecture)
    for group in GROUPS:
        assert rerank(group.query, [*group.negatives, group.positive]).passages[0] == group.positive


def test_training_repeats_to_the_bit_and_leaves_the_callers_random_state(tmp_path):
    base = RerankerWeights(ENCODER, "bi-encoder")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    for name in ("one", "two", "other"):
        seed = 3 if name == "other" else 1
        settings = TrainingSettings(epochs=2, seed=seed, **FAST)
        train_reranker(base, GROUPS, tmp_path / name, settings, show_progress=False)
    assert torch.equal(torch.rand(3), expected)
    assert fingerprint(str(tmp_path / "one")) == fingerprint(str(tmp_path / "two"))
    assert fingerprint(str(tmp_path / "one")) != fingerprint(str(tmp_path / "other"))


@pytest.fixture
def without_dropout(tmp_path):
    """A checkpoint whose training is the same function whatever the batch."""
    folder = tmp_path / "plain"
    shutil.copytree(weights(ENCODER), folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / "config.json").write_text(json.dumps(config))
    return RerankerWeights(str(folder), "bi-encoder")


def test_accumulated_batches_train_like_one_large_batch(without_dropout, tmp_path):
    losses = []
    # Three and one: a short last batch must not weigh more than its groups.
    for groups_per_step, accumulation in ((4, 1), (2, 2), (3, 2)):
        settings = TrainingSettings(
            epochs=3, learning_rate=1e-4, groups_per_step=groups_per_step, accumulation_steps=accumulation
        )
        result = train_reranker(without_dropout, GROUPS, tmp_path / f"{groups_per_step}", settings, show_progress=False)
        losses.append(result.losses)
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[2] == pytest.approx(losses[0], abs=1e-4)


def test_the_checkpoint_reads_as_far_as_its_base(tmp_path):
    result = train_reranker(
        RerankerWeights(ENCODER, "bi-encoder"),
        GROUPS,
        tmp_path / "out",
        TrainingSettings(epochs=1, **FAST),
        show_progress=False,
    )
    base, aligned = Encoder(ENCODER), Encoder(str(result.checkpoint))
    text = "filler " * 100
    for encoder in (base, aligned):
        tail, other = encoder.encode_passages([text + "yeast", text + "granite"])
        assert float(tail @ other) < 0.9999


def test_the_papers_accumulation_gives_way_to_enough_updates():
    settings = TrainingSettings()
    assert settings.accumulation(20_000) == 4
    assert settings.accumulation(160) == 1
    assert TrainingSettings(accumulation_steps=2).accumulation(160) == 2


def test_defaults_are_the_papers():
    settings = TrainingSettings()
    assert (settings.epochs, settings.learning_rate, settings.weight_decay) == (2, 6e-5, 0.01)
    assert (settings.groups_per_step, settings.max_length, settings.temperature) == (16, 512, 1.0)


def test_bf16_trains(tmp_path):
    settings = TrainingSettings(epochs=1, precision="bf16", **FAST)
    result = train_reranker(
        RerankerWeights(ENCODER, "bi-encoder"), GROUPS, tmp_path / "out", settings, show_progress=False
    )
    full = TrainingSettings(epochs=1, precision="fp32", **FAST)
    other = train_reranker(RerankerWeights(ENCODER, "bi-encoder"), GROUPS, tmp_path / "full", full, show_progress=False)
    assert result.losses == pytest.approx(other.losses, rel=0.1)
    assert result.losses != other.losses


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path):
    settings = TrainingSettings(epochs=30, learning_rate=1e30, max_length=32, groups_per_step=2)
    with pytest.raises(RadioError, match=r"training diverged\. Lower learning_rate"):
        train_reranker(
            RerankerWeights(ENCODER, "cross-encoder"), GROUPS, tmp_path / "out", settings, show_progress=False
        )
    assert not (tmp_path / "out").exists()


def test_checkpoints_are_never_overwritten(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(SettingsError, match="never overwritten"):
        train_reranker(RerankerWeights(ENCODER, "bi-encoder"), GROUPS, tmp_path / "there")
    with pytest.raises(DataError, match="no preference groups"):
        train_reranker(RerankerWeights(ENCODER, "bi-encoder"), [], tmp_path / "new")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"temperature": 0}, "temperature above 0"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(SettingsError, match=message):
        TrainingSettings(**setting)
