import asyncio
import itertools
import re

import dspy
import pytest
from dspy.utils import DummyLM
from hypothesis import given
from hypothesis import strategies as st

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.rerankers import LMRerank
from radio_dspy.rerankers.lm import repair_order, windows_of
from tests.conftest import scripted

QUERY = "which is the largest?"


class SortingLM(DummyLM):
    """Orders what it is shown by the numbers in the texts, largest first, and remembers what it was shown."""

    def __init__(self):
        super().__init__({})
        self.prompts = []

    def __call__(self, *args, messages=None, **kwargs):
        prompt = messages[-1]["content"]
        self.prompts.append(prompt)
        shown = [(int(value), int(number)) for number, value in re.findall(r"\[(\d+)\] text (\d+)", prompt)]
        order = [number for _, number in sorted(shown, reverse=True)]
        self.answers = iter([{"order": str(order)}])
        return super().__call__(*args, messages=messages, **kwargs)

    async def acall(self, *args, **kwargs):
        return self(*args, **kwargs)

    def shown(self):
        return [[int(value) for value in re.findall(r"\] text (\d+)", prompt)] for prompt in self.prompts]


def texts(*values):
    return [f"text {value}" for value in values]


def rerank(lm, passages, module=None, **options):
    with dspy.context(lm=lm):
        return (module or LMRerank())(QUERY, passages, **options)


any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet="0123456789[]> ,-.x"),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=20,
)


@given(any_value, st.integers(0, 12))
def test_a_repaired_order_is_always_a_permutation(order, n):
    assert sorted(repair_order(order, n)) == list(range(n))


@given(st.permutations(range(9)))
def test_a_whole_order_is_left_as_it_is(order):
    assert repair_order(order, 9) == order
    assert repair_order(" > ".join(f"[{number}]" for number in order), 9) == order


@pytest.mark.parametrize(
    ("order", "n", "repaired"),
    [
        ([3, 1], 5, [3, 1, 0, 2, 4]),
        ([1, 1, 1], 3, [1, 0, 2]),
        ([7, -1, 2], 3, [2, 0, 1]),
        ("-1, 2", 3, [2, 0, 1]),
        (["[2]", " 0 "], 3, [2, 0, 1]),
        ([2.0, 0.5, True, None, {}], 3, [2, 0, 1]),
        ("9" * 5000, 2, [0, 1]),
        (None, 2, [0, 1]),
    ],
)
def test_malformed_orders(order, n, repaired):
    assert repair_order(order, n) == repaired


@pytest.mark.parametrize(
    ("n", "window", "step", "windows"),
    [
        (0, 4, 2, []),
        (1, 4, 2, []),
        (3, 4, 2, [(0, 3)]),
        (4, 4, 2, [(0, 4)]),
        (8, 4, 2, [(4, 8), (2, 6), (0, 4)]),
        (7, 4, 2, [(3, 7), (1, 5), (0, 3)]),
        (50, 20, 10, [(30, 50), (20, 40), (10, 30), (0, 20)]),
    ],
)
def test_windows_go_from_the_back_to_the_front(n, window, step, windows):
    assert windows_of(n, window, step) == windows


@given(st.integers(2, 60), st.integers(2, 20), st.data())
def test_windows_cover_all_and_overlap(n, window, data):
    step = data.draw(st.integers(1, window - 1))
    found = windows_of(n, window, step)
    assert found[0][1] == n
    assert found[-1][0] == 0
    assert all(1 <= end - start <= window for start, end in found)
    assert all(later[1] > earlier[0] for earlier, later in itertools.pairwise(found))


def test_the_best_passage_is_carried_from_the_back_to_the_front():
    lm = SortingLM()
    ranked = rerank(lm, texts(1, 2, 3, 4, 5, 9), LMRerank(window=3, step=1))
    assert lm.shown() == [[4, 5, 9], [3, 9, 5], [2, 9, 5], [1, 9, 5]]
    assert ranked.passages == texts(9, 5, 1, 2, 3, 4)
    assert ranked.indices == [5, 4, 0, 1, 2, 3]
    assert (ranked.windows, ranked.unreadable) == (4, 0)


def test_scores_are_one_over_the_rank_and_passages_come_back_as_given():
    items = [Passage("a", "text 1"), {"text": "text 3"}, "text 2"]
    ranked = rerank(SortingLM(), items)
    assert ranked.passages == [items[1], items[2], items[0]]
    assert ranked.passages[0] is items[1]
    assert ranked.scores == [1.0, 1 / 2, 1 / 3]


def test_k_cuts_and_none_keeps_all():
    assert rerank(SortingLM(), texts(1, 2, 3), LMRerank(k=2)).passages == texts(3, 2)
    assert rerank(SortingLM(), texts(1, 2, 3), LMRerank(k=2), k=1).passages == texts(3)
    assert rerank(SortingLM(), texts(1, 2, 3)).passages == texts(3, 2, 1)


def test_nothing_to_order_asks_nobody():
    lm = SortingLM()
    assert rerank(lm, []).passages == []
    assert rerank(lm, texts(1)).passages == texts(1)
    assert lm.prompts == []


def test_answers_and_rationale_reach_the_lm_only_where_they_are_given():
    lm = SortingLM()
    rerank(lm, texts(1, 2))
    rerank(lm, texts(1, 2), answers=("the secret answer",), rationale="the secret reason")
    rerank(lm, texts(1, 2), answers=["the secret answer"])
    assert "secret" not in lm.prompts[0]
    assert "the secret answer" in lm.prompts[1]
    assert "the secret reason" in lm.prompts[1]
    assert "the secret answer" in lm.prompts[2]


def test_long_passages_are_cut_to_max_words():
    lm = SortingLM()
    ranked = rerank(lm, ["text 1 and so on", "text 2 for ever"], LMRerank(max_words=2))
    assert "and so on" not in lm.prompts[0]
    assert ranked.passages == ["text 2 for ever", "text 1 and so on"]
    rerank(lm, ["text 1 水が沸騰する", "text 2 水が凍る"], LMRerank(max_words=4))
    assert "水が" in lm.prompts[1]
    assert "沸騰" not in lm.prompts[1]


@pytest.mark.parametrize("reply", ["I cannot say.", "[]", "[17, 18]"])
def test_a_reply_that_names_no_passage_keeps_the_order_and_is_counted(reply):
    ranked = rerank(scripted(order=reply), texts(1, 2, 3, 4), LMRerank(window=3, step=1))
    assert ranked.passages == texts(1, 2, 3, 4)
    assert (ranked.unreadable, ranked.windows) == (2, 2)


def test_a_reply_with_faults_is_repaired_and_not_counted():
    ranked = rerank(scripted(order="[2, 2, 9]"), texts(1, 2, 3))
    assert ranked.passages == texts(3, 1, 2)
    assert ranked.unreadable == 0


def test_asynchronous_calls_give_the_same():
    async def ask():
        return await LMRerank(window=3, step=1).acall(QUERY, texts(1, 2, 3, 4, 9))

    with dspy.context(lm=SortingLM()):
        found = asyncio.run(ask())
    assert found.indices == rerank(SortingLM(), texts(1, 2, 3, 4, 9), LMRerank(window=3, step=1)).indices
    with dspy.context(lm=scripted(order="no")):
        assert asyncio.run(ask()).unreadable == 3


def test_it_is_saved_and_loaded_like_any_module(tmp_path):
    module = LMRerank()
    module.rank.demos = [dspy.Example(question="q", passages=["[0] a"], order=[0])]
    module.save(tmp_path / "program.json")
    fresh = LMRerank()
    fresh.load(tmp_path / "program.json")
    assert [dict(demo) for demo in fresh.rank.demos] == [dict(demo) for demo in module.rank.demos]
    assert {name for name, _ in module.named_predictors()} == {"rank", "rank_guided"}


def test_what_cannot_be_reranked():
    with pytest.raises(SettingsError, match="1 <= step < window"):
        LMRerank(window=5, step=5)
    with pytest.raises(SettingsError, match="max_words must be at least 1"):
        LMRerank(max_words=0)
    with pytest.raises(SettingsError, match="k must be at least 1"):
        rerank(SortingLM(), texts(1, 2), k=0)
    with pytest.raises(DataError, match="Passage 1 holds no text"):
        rerank(SortingLM(), ["text 1", {"id": 7}])
