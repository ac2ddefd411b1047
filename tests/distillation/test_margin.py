import math

import pytest
import torch

from radio_dspy.distillation import InfoNCE
from radio_dspy.distillation.losses import MarginInfoNCE


def test_one_group_by_hand():
    # Margins 0.8 and 0.4, mean 0.6: weights 4/3 and 2/3.
    weighted = 4 / 3 * math.exp(-1) + 2 / 3 * math.exp(0.5)
    expected = -math.log(math.exp(2) / (math.exp(2) + weighted))
    found = MarginInfoNCE()(torch.tensor([2.0, -1.0, 0.5]), [3], torch.tensor([1.0, 0.2, 0.6]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_the_temperature_divides_the_logits_and_not_the_weights():
    scores = torch.tensor([1.0, 0.2, 0.6])
    logits = torch.tensor([2.0, -1.0, 0.5])
    assert MarginInfoNCE(0.5)(logits, [3], scores).item() == pytest.approx(
        MarginInfoNCE()(logits * 2, [3], scores).item()
    )


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_with_equal_margins_it_is_infonce(temperature):
    logits = torch.tensor([2.0, -1.0, 0.5, 0.3, 1.2, -0.4, 0.0, 4.0], requires_grad=True)
    other = logits.detach().clone().requires_grad_()
    scores = torch.tensor([1.0, 0.2, 0.2, 0.9, 0.1, 0.8, 0.5, 0.5])
    sizes = [3, 2, 3]
    margin = MarginInfoNCE(temperature)(logits, sizes, scores)
    plain = InfoNCE(temperature)(other, sizes)
    assert margin.item() == pytest.approx(plain.item(), abs=1e-6)
    margin.backward()
    plain.backward()
    assert logits.grad == pytest.approx(other.grad, abs=1e-6)


@pytest.mark.parametrize("score", [1.0, 1.3])
def test_a_negative_as_good_as_the_positive_is_left_alone(score):
    logits = torch.tensor([0.0, 0.0, 5.0, 0.0, 0.0], requires_grad=True)
    MarginInfoNCE()(logits, [3, 2], torch.tensor([1.0, 0.2, score, 1.0, 0.0])).backward()
    assert logits.grad[2].item() == 0
    assert logits.grad[0].item() < 0 < logits.grad[1].item()
    assert torch.isfinite(logits.grad).all()


def test_a_group_without_any_margin_adds_nothing():
    logits = torch.tensor([0.0, 3.0, 1.0, 0.0, 0.0], requires_grad=True)
    loss = MarginInfoNCE()(logits, [3, 2], torch.tensor([0.4, 0.4, 0.9, 1.0, 0.0]))
    assert loss.item() == pytest.approx(math.log(2) / 2)  # the other group's, averaged over both
    loss.backward()
    assert logits.grad[:3].tolist() == [0, 0, 0]
    assert logits.grad[3:].tolist() == pytest.approx([-0.25, 0.25])


def test_a_wider_margin_pushes_harder():
    logits = torch.zeros(3, requires_grad=True)
    MarginInfoNCE()(logits, [3], torch.tensor([1.0, 0.0, 0.8])).backward()
    assert logits.grad[1].item() == pytest.approx(5 * logits.grad[2].item(), rel=1e-5)


def test_the_scale_of_the_teachers_scores_does_not_matter():
    logits, scores = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.2, 0.6])
    first = MarginInfoNCE()(logits, [3], scores).item()
    assert MarginInfoNCE()(logits, [3], scores * 1e-3 + 7).item() == pytest.approx(first, rel=1e-3)


def test_without_the_teachers_scores_there_are_no_margins():
    with pytest.raises(ValueError, match="MarginInfoNCE goes by the teacher's scores"):
        MarginInfoNCE()(torch.zeros(2), [2])


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        MarginInfoNCE(temperature)
