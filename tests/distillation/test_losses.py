import pytest
import torch

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation.losses import InfoNCE, ListwiseKL, MarginInfoNCE, open_loss, rows_of
from radio_dspy.distillation.training.settings import TrainingSettings

LOSSES = [InfoNCE(), ListwiseKL(), MarginInfoNCE()]
SIZES = [3, 2, 5]
LOGITS = [2.0, -1.0, 0.5, 0.3, 1.2, -0.4, 0.0, 4.0, -2.0, 0.7]
SCORES = [1.0, 0.2, 0.4, 0.9, 0.1, 0.8, 0.5, 0.8, 0.0, 0.3]


def test_each_name_opens_its_loss_with_the_temperatures():
    assert isinstance(open_loss("infonce"), InfoNCE)
    assert open_loss("infonce", 0.3).temperature == 0.3
    assert isinstance(open_loss("margin"), MarginInfoNCE)
    assert open_loss("margin", 0.3).temperature == 0.3
    listwise = open_loss("listwise", 0.3, 0.7)
    assert isinstance(listwise, ListwiseKL)
    assert (listwise.temperature, listwise.target_temperature) == (0.3, 0.7)
    assert open_loss("listwise").target_temperature == 0.05


def test_training_settings_hand_their_temperatures_on():
    loss = TrainingSettings(loss="listwise", temperature=2.0, target_temperature=0.5).open_loss()
    assert (loss.temperature, loss.target_temperature) == (2.0, 0.5)
    assert TrainingSettings().open_loss().temperature == 1.0


def test_a_loss_of_ones_own_is_taken_as_it_is():
    class Own:
        contrastive, needs_scores = False, True

        def __call__(self, logits, sizes, scores=None):
            return logits.sum()

    own = Own()
    assert open_loss(own) is own
    assert TrainingSettings(loss=own).open_loss() is own


@pytest.mark.parametrize("name", ["triplet", "InfoNCE", "", None])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(SettingsError, match=r"loss must be one of \('infonce', .*'plistmle'\) or a loss of"):
        open_loss(name)
    with pytest.raises(SettingsError, match="loss must be one of"):
        TrainingSettings(loss=name)


def test_which_losses_read_scores_and_which_know_negatives():
    assert [one.needs_scores for one in LOSSES] == [False, True, True]
    assert [one.contrastive for one in LOSSES] == [True, False, True]


def test_rows_are_padded_at_the_end():
    rows = rows_of(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), [3, 2], -7.0)
    assert rows.tolist() == [[1, 2, 3], [4, 5, -7]]
    assert rows_of(torch.zeros(4, dtype=torch.float16), [2, 2], 0.0).dtype == torch.float32


# What holds for every loss


@pytest.mark.parametrize("loss", LOSSES)
def test_ragged_groups_are_averaged_each_as_if_alone(loss):
    logits, scores = torch.tensor(LOGITS), torch.tensor(SCORES)
    alone = [
        loss(one, [len(one)], teacher).item()
        for one, teacher in zip(logits.split(SIZES), scores.split(SIZES), strict=True)
    ]
    assert min(alone) > 0
    assert loss(logits, SIZES, scores).item() == pytest.approx(sum(alone) / 3, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_the_negatives_does_not_matter(loss):
    logits, scores = torch.tensor(LOGITS), torch.tensor(SCORES)
    order = [0, 2, 1, 3, 4, 5, 9, 7, 6, 8]
    assert loss(logits[order], SIZES, scores[order]).item() == pytest.approx(loss(logits, SIZES, scores).item())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_constant_added_to_a_groups_logits_does_not_matter(loss):
    logits, scores = torch.tensor(LOGITS), torch.tensor(SCORES)
    moved = logits + torch.tensor([5.0] * 3 + [-2.0] * 2 + [0.5] * 5)
    assert loss(moved, SIZES, scores).item() == pytest.approx(loss(logits, SIZES, scores).item(), abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("factor", [1.0, 0.0, 1e4])
def test_gradients_of_ragged_groups_are_finite_and_right(loss, factor):
    logits = (torch.tensor(LOGITS) * factor).requires_grad_()
    scores = torch.tensor(SCORES)
    loss(logits, SIZES, scores).backward()
    assert torch.isfinite(logits.grad).all()
    # Within a group they add up to nothing: only differences of logits count.
    for group in logits.grad.split(SIZES):
        assert group.sum().item() == pytest.approx(0, abs=1e-5)
    if factor == 1.0:
        step = 1e-2
        for place in range(len(LOGITS)):
            ahead, behind = torch.tensor(LOGITS), torch.tensor(LOGITS)
            ahead[place] += step
            behind[place] -= step
            slope = (loss(ahead, SIZES, scores) - loss(behind, SIZES, scores)).item() / (2 * step)
            assert logits.grad[place].item() == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_full(loss):
    logits, scores = torch.tensor(LOGITS), torch.tensor(SCORES)
    half = loss(logits.bfloat16(), SIZES, scores)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss(logits.bfloat16().float(), SIZES, scores).item(), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", [[3, 2], [9, 1], []])
def test_sizes_that_do_not_fit_are_refused(loss, sizes):
    with pytest.raises(ValueError, match=r"\(each at least 2\) do not fit 10 values"):
        loss(torch.tensor(LOGITS), sizes, torch.tensor(SCORES))
