import math

import pytest
import torch

from radio_dspy.distillation.losses import ListwiseKL


def test_one_list_by_hand():
    # Teacher softmax([1, 0]) = (0.7311, 0.2689); the student's equal logits give (0.5, 0.5).
    p = 1 / (1 + math.exp(-1))
    expected = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert expected == pytest.approx(0.1109, abs=1e-4)
    found = ListwiseKL(target_temperature=1.0)(torch.zeros(2), [2], torch.tensor([1.0, 0.0]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_three_passages_by_hand():
    # Teacher logits 1/0.5, 0.5/0.5, 0/0.5 = 2, 1, 0; student logits 0/2, 2/2, 2/2 = 0, 1, 1.
    teacher = [math.exp(one) / (math.exp(2) + math.e + 1) for one in (2, 1, 0)]
    student = [math.exp(one) / (1 + 2 * math.e) for one in (0, 1, 1)]
    expected = sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))
    loss = ListwiseKL(temperature=2.0, target_temperature=0.5)
    assert loss(torch.tensor([0.0, 2.0, 2.0]), [3], torch.tensor([1.0, 0.5, 0.0])).item() == pytest.approx(expected)


def test_a_student_that_agrees_has_neither_loss_nor_gradient():
    scores = torch.tensor([1.0, 0.2, 0.6, 0.9, 0.4])
    logits = (scores / 0.05 + torch.tensor([3.0, 3.0, 3.0, -1.0, -1.0])).requires_grad_()
    loss = ListwiseKL()(logits, [3, 2], scores)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert logits.grad.abs().max().item() < 1e-5


def test_the_gradient_is_the_students_share_less_the_teachers():
    logits = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    scores = torch.tensor([0.1, 0.05, 0.0])
    ListwiseKL()(logits, [3], scores).backward()
    expected = logits.detach().softmax(-1) - (scores / 0.05).softmax(-1)
    assert logits.grad == pytest.approx(expected, abs=1e-6)


def test_the_best_passage_need_not_come_first():
    scores = torch.tensor([0.0, 1.0])
    logits = torch.zeros(2, requires_grad=True)
    ListwiseKL()(logits, [2], scores).backward()
    assert logits.grad.sign().tolist() == [1, -1]


def test_equal_teacher_scores_ask_for_equal_logits():
    found = ListwiseKL()(torch.tensor([1.0, 0.0]), [2], torch.tensor([0.3, 0.3])).item()
    assert found == pytest.approx(-math.log(2) - (1 - 2 * math.log(1 + math.e)) / 2, abs=1e-6)


def test_a_smaller_target_temperature_follows_the_best_more_sharply():
    scores, logits = torch.tensor([1.0, 0.9]), torch.zeros(2)
    losses = [ListwiseKL(target_temperature=one)(logits, [2], scores).item() for one in (0.01, 0.05, 1.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3)


def test_without_the_teachers_scores_there_is_nothing_to_follow():
    with pytest.raises(ValueError, match="ListwiseKL goes by the teacher's scores"):
        ListwiseKL()(torch.zeros(2), [2])


@pytest.mark.parametrize("temperatures", [(0, 0.05), (1, 0), (1, -1), (float("nan"), 1)])
def test_temperatures_that_are_not_positive_are_refused(temperatures):
    with pytest.raises(ValueError, match="Temperatures must be above 0"):
        ListwiseKL(*temperatures)
