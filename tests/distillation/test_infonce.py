import math

import pytest
import torch

from radio_dspy.distillation import InfoNCE


def test_one_group_by_hand():
    # -log(e^2 / (e^2 + e^-1 + e^0.5))
    expected = -math.log(math.exp(2) / (math.exp(2) + math.exp(-1) + math.exp(0.5)))
    assert InfoNCE()(torch.tensor([2.0, -1.0, 0.5]), [3]).item() == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(0.2413, abs=1e-4)


def test_ragged_groups_are_averaged():
    first = InfoNCE()(torch.tensor([2.0, -1.0, 0.5]), [3]).item()
    second = InfoNCE()(torch.tensor([0.0, 0.0]), [2]).item()
    both = InfoNCE()(torch.tensor([2.0, -1.0, 0.5, 0.0, 0.0]), [3, 2]).item()
    assert second == pytest.approx(math.log(2))
    assert both == pytest.approx((first + second) / 2)


def test_equal_logits_give_the_log_of_the_group_size():
    assert InfoNCE()(torch.zeros(7), [7]).item() == pytest.approx(math.log(7))


def test_the_order_of_negatives_and_groups_does_not_matter():
    loss = InfoNCE()
    assert loss(torch.tensor([1.0, 0.2, -3.0]), [3]) == pytest.approx(loss(torch.tensor([1.0, -3.0, 0.2]), [3]))
    one, other = [1.0, 0.2, -3.0], [0.5, 2.0]
    assert loss(torch.tensor(one + other), [3, 2]) == pytest.approx(loss(torch.tensor(other + one), [2, 3]))


def test_temperature_divides_the_logits():
    logits = torch.tensor([2.0, -1.0, 0.5])
    assert InfoNCE(0.5)(logits, [3]).item() == pytest.approx(InfoNCE()(logits * 2, [3]).item())


def test_gradients_raise_the_positive_and_lower_the_negatives():
    logits = torch.zeros(5, requires_grad=True)
    InfoNCE()(logits, [3, 2]).backward()
    assert logits.grad.sign().tolist() == [-1, 1, 1, -1, 1]
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_computed_in_full():
    loss = InfoNCE()(torch.tensor([5.0, 3.0], dtype=torch.bfloat16), [2])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-5)


@pytest.mark.parametrize("sizes", [[2, 2], [5, 1], []])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match=r"do not fit [56] values"):
        InfoNCE()(torch.zeros(6 if 1 in sizes else 5), sizes)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        InfoNCE(temperature)


def test_the_teachers_scores_are_not_read():
    logits = torch.tensor([2.0, -1.0, 0.5])
    assert InfoNCE()(logits, [3], torch.tensor([0.0, 9.0, 9.0])) == InfoNCE()(logits, [3])
    assert not InfoNCE.needs_scores
    assert InfoNCE.contrastive
