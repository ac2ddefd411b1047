import pytest
import torch
from safetensors.torch import load_file

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation import (
    PreferenceGroup,
    TrainingSettings,
    align,
    average_weights,
    mix_weights,
    train_reranker,
)
from radio_dspy.rerankers import RerankerWeights
from radio_dspy.runs.run import Run

GROUPS = [
    PreferenceGroup("why did the dough not rise?", "Yeast dies in hot water.", ("The dough was large.", "Rise early.")),
    PreferenceGroup("why is the jug cold?", "Vapour carries warmth away.", ("The jug is old.", "A cold day.")),
    PreferenceGroup("why do ships float?", "A body displaces its weight of water.", ("Ships sail.",)),
]
FAST = {"num_train_epochs": 1, "learning_rate": 1e-3, "max_length": 32, "per_device_train_batch_size": 1}


@pytest.fixture
def base(small):
    return RerankerWeights(small, "bi-encoder")


def trained(base, output, **settings):
    train_reranker(base, GROUPS, output, TrainingSettings(**{**FAST, **settings}))
    return RerankerWeights(str(output), base.architecture)


def tensors(weights):
    return load_file(f"{weights.checkpoint}/model.safetensors")


def test_the_runs_are_those_of_the_seeds_and_their_mean_is_returned(base, tmp_path):
    settings = TrainingSettings(**FAST, averaged_runs=3, seed=5)
    found = align(base, GROUPS, Run(tmp_path / "run"), settings)
    alone = [tensors(trained(base, tmp_path / str(seed), seed=seed)) for seed in (5, 1005, 2005)]
    mean = tensors(found.weights)
    assert mean.keys() == alone[0].keys()
    for name, value in mean.items():
        expected = sum(one[name].double() for one in alone) / 3
        assert torch.allclose(value.double(), expected, rtol=0, atol=1e-6), name
    assert any(not torch.equal(alone[0][name], alone[1][name]) for name in mean)
    assert found.training.updates == len(found.training.losses) == 3 * 3
    assert found.training.checkpoint.is_dir()


def test_runs_that_were_finished_before_are_not_trained_again(base, tmp_path, monkeypatch):
    from radio_dspy.distillation import train_and_gate as alignment

    run, seeds = Run(tmp_path / "run"), []
    train = alignment.train_reranker

    def counted(weights, groups, output, settings, **options):
        seeds.append(settings.seed)
        return train(weights, groups, output, settings, **options)

    monkeypatch.setattr(alignment, "train_reranker", counted)
    settings = TrainingSettings(**FAST, averaged_runs=2, seed=5)
    first = align(base, GROUPS, run, settings)
    more = align(base, GROUPS, run, TrainingSettings(**FAST, averaged_runs=3, seed=5))
    assert align(base, GROUPS, run, settings).weights.checkpoint == first.weights.checkpoint
    assert seeds == [5, 1005, 2005]
    assert more.weights.checkpoint != first.weights.checkpoint


def test_a_mean_of_one_is_itself_and_a_mixture_is_a_weighted_mean(base, tmp_path):
    one, other = trained(base, tmp_path / "one", seed=1), trained(base, tmp_path / "other", seed=2)
    average_weights([one], tmp_path / "same")
    average_weights([one, other, other, other], tmp_path / "mean")
    mix_weights(one, other, 0.75, tmp_path / "mixed")
    same, mean, mixed = (
        tensors(RerankerWeights(str(tmp_path / name), base.architecture)) for name in ("same", "mean", "mixed")
    )
    for name, value in tensors(one).items():
        assert torch.equal(same[name], value)
        assert torch.allclose(mean[name].double(), mixed[name].double(), rtol=0, atol=1e-6)


def test_a_number_of_runs_must_be_one():
    with pytest.raises(SettingsError, match="averaged_runs must be a whole number of at least 1, got 0"):
        TrainingSettings(averaged_runs=0)
