import math

import pytest
import torch

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation import InfoNCE
from radio_dspy.distillation.losses import MultiPositiveInfoNCE, open_loss
from radio_dspy.distillation.preferences.settings import PreferenceSettings

LOGITS = torch.tensor([2.0, -1.0, 0.5])


def test_one_group_by_hand():
    # The first two are positives: their summed likelihood is taken.
    expected = -math.log((math.exp(2) + math.exp(-1)) / (math.exp(2) + math.exp(-1) + math.exp(0.5)))
    found = MultiPositiveInfoNCE()(LOGITS, [3], torch.tensor([1.0, 0.96, 0.2]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_groups_of_several_sizes_are_averaged_each_as_if_alone():
    loss = MultiPositiveInfoNCE(0.5)
    logits, scores = torch.tensor([2.0, -1.0, 0.5, 0.3, 1.2]), torch.tensor([1.0, 1.0, 0.2, 0.9, 0.1])
    alone = [loss(logits[:3], [3], scores[:3]), loss(logits[3:], [2], scores[3:])]
    assert loss(logits, [3, 2], scores).item() == pytest.approx(sum(alone).item() / 2, abs=1e-6)


def test_with_one_positive_it_is_infonce():
    found = MultiPositiveInfoNCE()(LOGITS, [3], torch.tensor([1.0, 0.9, 0.2]))
    assert found.item() == pytest.approx(InfoNCE()(LOGITS, [3]).item(), abs=1e-6)


def test_no_positive_is_pushed_below_another_and_positives_alone_add_nothing():
    logits = torch.tensor([5.0, 0.0, 0.0], requires_grad=True)
    MultiPositiveInfoNCE()(logits, [3], torch.tensor([1.0, 1.0, 0.0])).backward()
    assert logits.grad[1] <= 0 < logits.grad[2]
    alone = MultiPositiveInfoNCE()(torch.tensor([5.0, 0.0]), [2], torch.tensor([1.0, 1.0]))
    assert alone.item() == pytest.approx(0, abs=1e-6)


def test_it_is_known_by_its_name_and_takes_the_guards_margin_over():
    loss = open_loss("multi-positive", 0.5)
    assert (type(loss), loss.temperature) == (MultiPositiveInfoNCE, 0.5)
    settings = PreferenceSettings().for_loss(loss.contrastive, several_positives=loss.several_positives)
    assert (settings.sampling, settings.depth, settings.false_negatives.absolute_margin) == ("all", 20, 0.0)
    with pytest.raises(ValueError, match="margin must lie"):
        MultiPositiveInfoNCE(margin=1.0)
    with pytest.raises(ValueError, match="a score for each logit"):
        loss(LOGITS, [3])
    with pytest.raises(SettingsError, match="multi-positive"):
        open_loss("multi")
