import pytest
import torch

from radio_dspy.distillation import TextGroup, TrainingSettings, train_reranker
from radio_dspy.encoders import fingerprint
from radio_dspy.errors import DataError, RadioError, SettingsError
from radio_dspy.rerankers import Rerank, RerankerWeights
from radio_dspy.rerankers.scorers import CrossEncoderScorer
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
    weights = RerankerWeights(ENCODER, architecture)
    before = weights.fingerprint
    settings = TrainingSettings(epochs=12, **FAST)
    result = train_reranker(weights, GROUPS, tmp_path / "out", settings, show_progress=False)
    assert result.updates == len(result.losses) == 24
    assert sum(result.losses[-4:]) < 0.7 * sum(result.losses[:4])
    assert weights.fingerprint == before
    rerank = Rerank(str(tmp_path / "out"), architecture)
    for group in GROUPS:
        assert rerank(group.query, [*group.negatives, group.positive]).passages[0] == group.positive


def test_training_repeats_to_the_bit_and_leaves_the_callers_random_state(tmp_path):
    weights = RerankerWeights(ENCODER, "bi-encoder")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    for name in ("one", "two", "other"):
        seed = 3 if name == "other" else 1
        settings = TrainingSettings(epochs=2, seed=seed, **FAST)
        train_reranker(weights, GROUPS, tmp_path / name, settings, show_progress=False)
    assert torch.equal(torch.rand(3), expected)
    assert fingerprint(str(tmp_path / "one")) == fingerprint(str(tmp_path / "two"))
    assert fingerprint(str(tmp_path / "one")) != fingerprint(str(tmp_path / "other"))


def test_accumulated_batches_give_the_gradient_of_one_large_batch():
    from radio_dspy.distillation import InfoNCE

    scorer = CrossEncoderScorer(RerankerWeights(ENCODER, "cross-encoder", max_length=32))

    def gradient(batches):
        scorer.module.zero_grad()
        for batch in batches:
            logits = scorer.logits([(g.query, text) for g in batch for text in (g.positive, *g.negatives)])
            loss = InfoNCE()(logits, [1 + len(g.negatives) for g in batch]) * (len(batch) / len(GROUPS))
            loss.backward()
        return torch.cat([one.grad.flatten() for one in scorer.module.parameters() if one.grad is not None])

    scorer.module.eval()  # no dropout: the two ways must agree
    assert torch.allclose(gradient([GROUPS]), gradient([GROUPS[:3], GROUPS[3:]]), atol=1e-5)


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
    assert all(0 < loss < 10 for loss in result.losses)


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
