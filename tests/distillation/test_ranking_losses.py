"""sentence-transformers' losses give here what they give over its own cross-encoder."""

import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation import TrainingSettings
from radio_dspy.distillation.losses import open_loss

TEXTS = {"a": ["p", "q", "r"], "b": ["s", "t", "u"], "c": ["v", "w"]}
GOLD = {"a": [1.0, 0.3, 0.6], "b": [0.7, 0.0, 0.0], "c": [0.4, 0.9]}
LISTS = {
    "lambda": losses.LambdaLoss,
    "ranknet": losses.RankNetLoss,
    "adr-mse": losses.ADRMSELoss,
    "listnet": losses.ListNetLoss,
    "plistmle": lambda model, **more: losses.PListMLELoss(model, respect_input_order=False, **more),
}


class Model(CrossEncoder):
    """A cross-encoder of one weight for each text."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.known = torch.nn.Parameter(torch.linspace(-1, 1, 8).roll(3))
        self.asked = 0

    def preprocess(self, pairs, **_):
        self.asked += len(pairs)
        return {"rows": torch.tensor([ord(text) - ord("p") for _, text in pairs])}

    def forward(self, features):
        return {"scores": self.known[features["rows"]]}


def ours(loss, model, names):
    texts = [text for name in names for text in TEXTS[name]]
    logits = model(model.preprocess([("", text) for text in texts]))["scores"]
    gold = torch.tensor([one for name in names for one in GOLD[name]])
    return open_loss(loss)(logits, [len(TEXTS[name]) for name in names], gold)


def gradient(value, model):
    return torch.autograd.grad(value, model.known)[0]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_loss(name):
    model, names = Model(), list(TEXTS)
    labels = [torch.tensor(GOLD[one]) for one in names]
    expected = LISTS[name](model)([names, list(TEXTS.values())], labels)
    found = ours(name, model, names)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(gradient(found, model), gradient(expected, model), atol=1e-6)


def test_margins_of_groups_of_several_sizes():
    model = Model()
    loss = losses.MarginMSELoss(model)

    def theirs(names):
        columns = [list(one) for one in zip(*[TEXTS[name] for name in names], strict=True)]
        return loss([names, *columns], [torch.tensor(GOLD[one]) for one in names])

    expected = (2 * theirs(["a", "b"]) + theirs(["c"])) / 3  # every group weighs the same
    found = ours("margin-mse", model, list(TEXTS))
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(gradient(found, model), gradient(expected, model), atol=1e-6)


def test_an_object_of_ones_own_keeps_its_settings_and_its_model_is_not_asked():
    model, names = Model(), list(TEXTS)
    own = losses.LambdaLoss(Model(), k=1, weighting_scheme=losses.LambdaRankScheme())
    found = ours(own, model, names)
    labels = [torch.tensor(GOLD[one]) for one in names]
    expected = losses.LambdaLoss(model, k=1, weighting_scheme=losses.LambdaRankScheme())(
        [names, list(TEXTS.values())], labels
    )
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert found.item() != pytest.approx(ours("lambda", model, names).item(), abs=1e-3)
    assert isinstance(own.model, Model)
    assert own.model.asked == 0


def test_what_does_not_rank_lists_is_refused_at_once():
    with pytest.raises(SettingsError, match="BinaryCrossEntropyLoss does not rank a list"):
        TrainingSettings(loss=losses.BinaryCrossEntropyLoss(Model())).open_loss()


def test_the_temperature_divides_the_logits():
    model = Model()
    logits = model.known.detach()
    gold = torch.linspace(0, 1, 8)
    assert open_loss("ranknet", 2.0)(logits, [8], gold) == open_loss("ranknet")(logits / 2, [8], gold)


def test_without_scores_there_is_nothing_to_follow():
    with pytest.raises(ValueError, match="LambdaLoss goes by the teacher's scores"):
        open_loss("lambda")(torch.zeros(2), [2])
