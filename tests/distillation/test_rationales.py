import dspy
import pytest
from dspy.utils import DummyLM

from radio_dspy.distillation.extractor import RationaleExtractor
from radio_dspy.distillation.rationales import explain
from radio_dspy.errors import DataError, LanguageModelError
from radio_dspy.passages import Passage, RankRequest
from radio_dspy.runs import Run
from tests.conftest import scripted

PASSAGES = (Passage("a", "x"), Passage("b", "y"))


def requests(*ids):
    return [RankRequest(one, f"Why {one}?", PASSAGES, (1.0, 0.5), answers=(f"answer {one}",)) for one in ids]


def ask(run, lm, *ids, given=None, **options):
    return explain(
        requests(*ids), run, lm=lm, extractor=RationaleExtractor(), given=given or {}, show_progress=False, **options
    )


class CountingLM(DummyLM):
    """Answers with the question's own name, and counts."""

    def __init__(self, fail_at=None):
        super().__init__({f"Why {one}?": {"rationale": f"because {one}"} for one in "abcdefgh"})
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.fail_at:
            raise dspy.LMTransportError("connection refused", model="dummy", provider="dummy")
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize("threads", [1, 4])
def test_every_question_gets_its_own_rationale(tmp_path, threads):
    found, counts = ask(Run(tmp_path), CountingLM(), *"abcdefgh", num_threads=threads)
    assert [one.rationale for one in found] == [f"because {one}" for one in "abcdefgh"]
    assert counts.written == 8
    assert {one["id"]: one["rationale"] for one in Run(tmp_path).read_records("rationales")} == {
        one: f"because {one}" for one in "abcdefgh"
    }


def test_a_run_that_is_taken_up_again_asks_only_for_what_is_missing(tmp_path):
    ask(Run(tmp_path), CountingLM(), "a", "b")
    lm = CountingLM()
    found, counts = ask(Run(tmp_path), lm, "a", "b", "c")
    assert (lm.calls, counts.reused, counts.written) == (1, 2, 1)
    assert [one.rationale for one in found] == ["because a", "because b", "because c"]


def test_a_rationale_of_other_settings_is_not_used_again(tmp_path):
    ask(Run(tmp_path), CountingLM(), "a")
    lm = CountingLM()
    changed = RationaleExtractor(temperature=0.7)
    _, counts = explain(requests("a"), Run(tmp_path), lm=lm, extractor=changed, given={}, show_progress=False)
    assert (lm.calls, counts.reused) == (1, 0)


def test_given_rationales_are_taken_and_nobody_is_asked(tmp_path):
    lm = CountingLM()
    found, counts = ask(Run(tmp_path), lm, "a", "b", given={"a": " mine ", "b": "yours"})
    assert lm.calls == 0
    assert [one.rationale for one in found] == ["mine", "yours"]
    assert counts.given == 2


def test_an_ablation_without_an_lm_keeps_what_was_bought(tmp_path):
    ask(Run(tmp_path), CountingLM(), "a", "b")
    ask(Run(tmp_path), None, "a", "b", "c")
    ask(Run(tmp_path), None, "a", "c", given={"c": "mine"})
    lm = CountingLM()
    _, counts = ask(Run(tmp_path), lm, "a", "b")
    assert (lm.calls, counts.reused) == (0, 2)


def test_given_rationales_of_other_questions_are_an_error_and_blank_ones_are_asked_for(tmp_path):
    with pytest.raises(DataError, match="None of the 1 given rationales belongs to a training question"):
        ask(Run(tmp_path), None, "a", given={"elsewhere": "text"})
    lm = CountingLM()
    found, counts = ask(Run(tmp_path), lm, "a", "b", given={"a": "  ", "b": "mine"})
    assert [one.rationale for one in found] == ["because a", "mine"]
    assert (counts.given, counts.written, counts.lm_calls) == (1, 1, 1)


class RefusingLM(CountingLM):
    """Refuses some questions, as a content filter does."""

    def __init__(self, *refused):
        super().__init__()
        self.refused = refused

    def __call__(self, *args, messages=None, **kwargs):
        if any(f"Why {one}?" in messages[-1]["content"] for one in self.refused):
            raise dspy.LMInvalidRequestError("content filter", model="dummy", provider="dummy")
        return super().__call__(*args, messages=messages, **kwargs)


def test_a_refused_question_is_counted_and_not_asked_again(tmp_path):
    found, counts = ask(Run(tmp_path), RefusingLM("b"), "a", "b", "c")
    assert [one.rationale for one in found] == ["because a", "", "because c"]
    assert (counts.written, counts.refused, counts.empty) == (3, 1, 1)
    lm = CountingLM()
    assert ask(Run(tmp_path), lm, "a", "b", "c")[1].reused == 3
    assert lm.calls == 0


def test_an_lm_that_refuses_everything_stops_the_run(tmp_path):
    lm = RefusingLM(*"abcdefgh")
    with pytest.raises(LanguageModelError, match="content filter"):
        ask(Run(tmp_path), lm, *"abcdefgh")


def test_a_full_disk_is_reported_as_what_it_is(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "append_record", full)
    for threads in (1, 3):
        with pytest.raises(OSError, match="No space left"):
            ask(Run(tmp_path), CountingLM(), *"abcd", num_threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failing_lm_stops_the_run_and_keeps_what_was_written(tmp_path, threads):
    with pytest.raises(LanguageModelError, match="Rationales written before are kept"):
        ask(Run(tmp_path), CountingLM(fail_at=4), *"abcdefgh", num_threads=threads)
    kept = Run(tmp_path).read_records("rationales")
    assert len(kept) >= 3 if threads == 1 else kept
    lm = CountingLM()
    _, counts = ask(Run(tmp_path), lm, *"abcdefgh")
    assert counts.reused == len(kept)
    assert lm.calls == 8 - len(kept)


def test_an_empty_reply_is_counted_and_not_an_error(tmp_path):
    found, counts = ask(Run(tmp_path), scripted(rationale=""), "a")
    assert found[0].rationale == ""
    assert counts.empty == 1


def test_bulk_calls_stay_out_of_trace_and_history(tmp_path):
    lm = CountingLM()
    trace = []
    with dspy.context(trace=trace):
        ask(Run(tmp_path), lm, "a")
    assert trace == []
    assert lm.history == []


def test_the_lms_own_limit_is_respected_and_the_papers_is_the_default():
    extractor = RationaleExtractor()
    with dspy.context(lm=dspy.LM("openai/x", api_key="none", max_tokens=50, temperature=0.7)):
        assert extractor._config() == {}
        assert RationaleExtractor(temperature=0.0, max_tokens=9)._config() == {"temperature": 0.0, "max_tokens": 9}
    with dspy.context(lm=dspy.LM("openai/gpt-5", api_key="none", temperature=1.0, max_tokens=20000)):
        assert extractor._config() == {}
    with dspy.context(lm=dspy.LM("openai/x", api_key="none")):
        assert extractor._config() == {"temperature": 0.2, "max_tokens": 1000}


async def _explain():
    return (await RationaleExtractor().acall(question="Why a?", answers=["x"])).rationale


def test_extractor_is_asynchronous_too():
    import asyncio

    with dspy.context(lm=scripted(rationale="because")):
        assert asyncio.run(_explain()) == "because"
