import numpy as np
import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.distillation.gate import splitting
from radio_dspy.distillation.gate.splitting import question_groups, split_by_group


class Angles:
    """An encoder of texts that are angles in degrees."""

    def encode_queries(self, texts):
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_same_question_asked_twice_is_one_group(small):
    groups = question_groups(
        ["Why is ice slippery?", "Who baked the bread?", "why is ice so slippery?", "Who baked the bread?"], small
    )
    assert groups == [0, 1, 0, 1]


def test_closeness_is_passed_on_and_begins_at_the_threshold():
    # cos 25 degrees is 0.906, cos 26 is 0.899, cos 50 is 0.643.
    assert question_groups(["0", "50", "25"], Angles()) == [0, 0, 0]
    assert question_groups(["0", "50"], Angles()) == [0, 1]
    assert question_groups(["0", "26"], Angles()) == [0, 1]
    assert question_groups(["0", "26"], Angles(), threshold=0.89) == [0, 0]
    assert question_groups([], Angles()) == []


def test_many_questions_are_compared_in_parts(monkeypatch):
    texts = [str(angle) for angle in (0, 90, 180, 270, 10, 100, 190, 280, 90, 5)]
    whole = question_groups(texts, Angles())
    assert whole == [0, 1, 2, 3, 0, 1, 2, 3, 1, 0]
    for rows, columns in [(3, 8192), (3, 2), (2, 3), (1, 1)]:
        monkeypatch.setattr(splitting, "_ROWS", rows)
        monkeypatch.setattr(splitting, "_COLUMNS", columns)
        assert question_groups(texts, Angles()) == whole


@pytest.mark.parametrize(
    ("count", "kept"), [(2, 1), (3, 1), (10, 5), (19, 9), (20, 10), (50, 10), (51, 10), (60, 12), (1000, 200)]
)
def test_about_a_fifth_is_kept_back_at_least_ten_at_most_half(count, kept):
    learnt, held_out = split_by_group(range(count), range(count), seed=1)
    assert len(held_out) == kept
    assert sorted([*learnt, *held_out]) == list(range(count))


def test_both_parts_keep_their_order():
    learnt, held_out = split_by_group([f"q{i:02}" for i in range(60)], range(60), seed=3)
    assert learnt == sorted(learnt)
    assert held_out == sorted(held_out)


@pytest.mark.parametrize("seed", range(20))
def test_a_group_stays_on_one_side_and_the_part_never_grows_beyond_its_size(seed):
    groups = [i // 7 * 7 for i in range(100)]  # sevens: 20 cannot be met exactly
    learnt, held_out = split_by_group(range(100), groups, seed)
    assert not {groups[one] for one in learnt} & {groups[one] for one in held_out}
    assert 14 <= len(held_out) <= 20


@pytest.mark.parametrize("seed", range(5))
def test_large_groups_alone_still_leave_enough_to_judge_by(seed):
    """Questions out of a few templates: a fifth would be 3, or none."""
    for sizes in ([13, 13, 11, 3], [14, 13, 13]):
        groups = [number for number, size in enumerate(sizes) for _ in range(size)]
        learnt, held_out = split_by_group(range(40), groups, seed)
        assert 10 <= len(held_out) <= 20
        assert not {groups[one] for one in learnt} & {groups[one] for one in held_out}


@pytest.mark.parametrize("seed", range(20))
def test_a_group_too_large_to_be_kept_back_is_learnt_from(seed):
    groups = [0] * 40 + list(range(1, 21))
    learnt, held_out = split_by_group(range(60), groups, seed)
    assert len(held_out) == 12
    assert min(held_out) >= 40
    assert set(range(40)) <= set(learnt)


def test_the_seed_decides():
    first = split_by_group(range(60), range(60), seed=1)
    assert split_by_group(range(60), range(60), seed=1) == first
    assert split_by_group(range(60), range(60), seed=2) != first


@pytest.mark.parametrize("count", [1, 2, 30])
def test_questions_that_are_all_alike_cannot_be_split(count):
    with pytest.raises(DataError, match=f"The {count} training questions are almost alike.*Give a valset"):
        split_by_group(range(count), [0] * count, seed=1)


def test_near_duplicates_stay_on_one_side_from_text_to_split(encoder):
    subjects = ["bread", "ice", "ships", "glass", "clay jugs", "copper", "candles", "wool", "honey", "salt"]
    texts = [text for one in subjects for text in (f"Why do {one} need care?", f"why do {one} need care")]
    groups = question_groups(texts, encoder)
    assert len(set(groups)) >= 6
    learnt, held_out = split_by_group(texts, groups, seed=42)
    fold = {text.lower().rstrip("?") for text in learnt} & {text.lower().rstrip("?") for text in held_out}
    assert fold == set()
    assert held_out
