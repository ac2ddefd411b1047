import threading
from types import SimpleNamespace

import dspy
import pytest
from dspy.utils import DummyLM
from radio_dspy.optimizers.job import check_ids

from radio_dspy.core.errors import DataError, LanguageModelError
from radio_dspy.distillation.rationales.extractor import RationaleExtractor
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.runs.run import Run
from tests.conftest import scripted


def questions(*ids):
    return [(one, f"Why {one}?", (f"answer {one}",)) for one in ids]


def ask(run, lm, *ids, given=None, check=False, extractor=None, **options):
    """Most tests here are not about the check: their scripted rationales never name the answer."""
    return explain(
        questions(*ids),
        run,
        lm=lm,
        extractor=extractor or RationaleExtractor(),
        given=given or {},
        check=check,
        show_progress=False,
        **options,
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
    assert found == {one: f"because {one}" for one in "abcdefgh"}
    assert list(found) == list("abcdefgh")
    assert counts.written == 8
    assert {one["id"]: one["rationale"] for one in Run(tmp_path).read_records("rationales")} == {
        one: f"because {one}" for one in "abcdefgh"
    }


def test_a_run_that_is_taken_up_again_asks_only_for_what_is_missing(tmp_path):
    ask(Run(tmp_path), CountingLM(), "a", "b")
    lm = CountingLM()
    found, counts = ask(Run(tmp_path), lm, "a", "b", "c")
    assert (lm.calls, counts.reused, counts.written) == (1, 2, 1)
    assert found == {"a": "because a", "b": "because b", "c": "because c"}


def test_a_rationale_of_other_settings_is_not_used_again(tmp_path):
    ask(Run(tmp_path), CountingLM(), "a")
    lm = CountingLM()
    _, counts = ask(Run(tmp_path), lm, "a", extractor=RationaleExtractor(temperature=0.7))
    assert (lm.calls, counts.reused) == (1, 0)


def test_given_rationales_are_taken_and_nobody_is_asked(tmp_path):
    lm = CountingLM()
    found, counts = ask(Run(tmp_path), lm, "a", "b", given={"a": " mine ", "b": "yours"})
    assert lm.calls == 0
    assert found == {"a": "mine", "b": "yours"}
    assert counts.given == 2


def test_an_ablation_without_an_lm_keeps_what_was_bought(tmp_path):
    ask(Run(tmp_path), CountingLM(), "a", "b")
    assert ask(Run(tmp_path), None, "a", "b", "c")[0] == {"a": "", "b": "", "c": ""}
    ask(Run(tmp_path), None, "a", "c", given={"c": "mine"})
    lm = CountingLM()
    _, counts = ask(Run(tmp_path), lm, "a", "b")
    assert (lm.calls, counts.reused) == (0, 2)


def test_given_rationales_of_other_questions_are_not_read_and_blank_ones_are_asked_for(tmp_path):
    lm = CountingLM()
    found, counts = ask(Run(tmp_path), lm, "a", "b", given={"a": "  ", "b": "mine", "elsewhere": "text"})
    assert found == {"a": "because a", "b": "mine"}
    assert (counts.given, counts.written, lm.calls) == (1, 1, 1)
    assert [one["id"] for one in Run(tmp_path).read_records("rationales")] == ["b", "a"]


def test_a_compile_does_not_take_a_rationale_that_belongs_to_no_question():
    train, held_out = [dspy.Example(id="a", question="Why a?")], [dspy.Example(id="b", question="Why b?")]
    job = SimpleNamespace(train=train, held_out=held_out, first_stage=None)
    check_ids(job, {"a": "text", "b": "text"})
    with pytest.raises(DataError, match=r"'elsewhere', which is no question of trainset or valset"):
        check_ids(job, {"a": "text", "elsewhere": "text"})


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
    assert found == {"a": "because a", "b": "", "c": "because c"}
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
    assert found == {"a": ""}
    assert (counts.empty, counts.useless) == (1, {})


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
        assert extractor.settings() == {}
        assert RationaleExtractor(temperature=0.0, max_tokens=9).settings() == {"temperature": 0.0, "max_tokens": 9}
    with dspy.context(lm=dspy.LM("openai/gpt-5", api_key="none", temperature=1.0, max_tokens=20000)):
        assert extractor.settings() == {}
    with dspy.context(lm=dspy.LM("openai/x", api_key="none")):
        assert extractor.settings() == {"temperature": 0.2, "max_tokens": 1000}


async def _explain():
    return (await RationaleExtractor().acall(question="Why a?", answers=["x"])).rationale


def test_extractor_is_asynchronous_too():
    import asyncio

    with dspy.context(lm=scripted(rationale="because")):
        assert asyncio.run(_explain()) == "because"


# The check


class SamplingLM(DummyLM):
    """Gives one rationale to the first question asked and another to a resample; keeps what it was asked with."""

    def __init__(self, first, second="unused", **kwargs):
        super().__init__({})
        self.kwargs.update(kwargs)
        self.samples = (first, second)
        self.sent = []
        self.lock = threading.Lock()

    def __call__(self, *args, **kwargs):
        text = self.samples[bool(kwargs.get("rollout_id"))]
        if isinstance(text, Exception):
            raise text
        with self.lock:
            self.sent.append(kwargs)
            self.answers = {"": {"rationale": text}}
            return super().__call__(*args, **kwargs)


GOOD = "Heat kills yeast, which is answer a."
USELESS = {
    "empty": "",
    "refusal": "I'm sorry, but I cannot say why it is answer a.",
    "answer missing": "Heat kills yeast.",
    "repetition": "the answer a is so because of it, " * 8,
    "longer than the encoder's window": "Answer a holds for reasons: " + ", ".join(map(str, range(400))),
}


@pytest.mark.parametrize(("problem", "text"), USELESS.items())
def test_a_useless_rationale_is_asked_for_once_more_and_the_second_is_taken(tmp_path, small, problem, text):
    lm = SamplingLM(text, GOOD)
    found, counts = ask(Run(tmp_path), lm, "a", check=True, encoder=small)
    assert found == {"a": GOOD}
    assert (counts.written, counts.retried, counts.useless, counts.empty, len(lm.sent)) == (1, 1, {}, 0, 2)
    (record,) = Run(tmp_path).read_records("rationales")
    assert (record["rationale"], record["problem"], record["retried"]) == (GOOD, "", True)


@pytest.mark.parametrize(("problem", "text"), USELESS.items())
def test_after_two_useless_ones_there_is_none(tmp_path, small, problem, text):
    lm = SamplingLM(text, "No use, either.")
    found, counts = ask(Run(tmp_path), lm, "a", check=True, encoder=small)
    assert found == {"a": ""}
    assert counts.retried == 1
    # An empty one is counted as such, the others by what is wrong with the first sample, which is kept on disk.
    assert (counts.empty, counts.useless) == ((1, {}) if problem == "empty" else (0, {problem: 1}))
    (record,) = Run(tmp_path).read_records("rationales")
    assert (record["rationale"], record["problem"], record["retried"]) == (text.strip(), problem, True)


def test_a_good_rationale_is_asked_for_once(tmp_path, small):
    lm = SamplingLM(GOOD, "never")
    found, counts = ask(Run(tmp_path), lm, "a", check=True, encoder=small)
    assert found == {"a": GOOD}
    assert (len(lm.sent), counts.retried, counts.useless) == (1, 0, {})
    assert Run(tmp_path).read_records("rationales")[0]["retried"] is False


def test_without_the_check_all_are_taken_as_they_are(tmp_path, small):
    for name, text in USELESS.items():
        lm = SamplingLM(text, GOOD)
        found, counts = ask(Run(tmp_path / name), lm, "a", encoder=small)
        assert found == {"a": text.strip()}
        assert (len(lm.sent), counts.retried, counts.useless) == (1, 0, {})
        (record,) = Run(tmp_path / name).read_records("rationales")
        assert (record["problem"], record["retried"]) == ("", False)


def test_the_second_sample_is_another_one_and_goes_past_the_response_cache(tmp_path):
    lm = SamplingLM("no use", GOOD, temperature=0.2, seed=42)
    ask(Run(tmp_path), lm, "a", check=True)
    first, second = lm.sent
    assert (first.get("rollout_id"), first.get("seed"), first.get("temperature")) == (None, None, None)
    assert second["rollout_id"]
    assert second["seed"] == 43
    assert second["temperature"] == pytest.approx(0.7)


def test_a_resample_changes_no_more_than_it_must():
    extractor = RationaleExtractor()
    with dspy.context(lm=dspy.LM("openai/x", api_key="none", temperature=1.0, max_tokens=50)):
        assert extractor.settings(1) == {"rollout_id": 1, "temperature": 1.0}
    with dspy.context(lm=dspy.LM("openai/x", api_key="none")):
        assert extractor.settings(1) == {"rollout_id": 1, "temperature": 0.7, "max_tokens": 1000}
    with dspy.context(lm=dspy.LM("openai/gpt-5", api_key="none", temperature=1.0, max_tokens=20000)):
        assert extractor.settings(1) == {"rollout_id": 1}  # a reasoning model takes no temperature


@pytest.mark.parametrize("check", [True, False])
def test_a_resumed_run_does_not_ask_again_for_what_is_no_use(tmp_path, check):
    first = ask(Run(tmp_path), CountingLM(), "a", "b", check=True)
    lm = CountingLM()
    found, counts = ask(Run(tmp_path), lm, "a", "b", check=check)
    assert (lm.calls, counts.reused, counts.retried) == (0, 2, 0)
    assert first[1].useless == {"answer missing": 2}
    assert counts.useless == ({"answer missing": 2} if check else {})
    assert found == ({"a": "", "b": ""} if check else {"a": "because a", "b": "because b"})


def test_given_rationales_are_checked_and_kept_as_they_were_given(tmp_path):
    given = {"a": "Because of answer a.", "b": "mine"}
    found, counts = ask(Run(tmp_path), None, "a", "b", given=given, check=True)
    assert found == {"a": "Because of answer a.", "b": ""}
    assert (counts.given, counts.useless, counts.empty) == (2, {"answer missing": 1}, 0)
    assert {one["id"]: one["rationale"] for one in Run(tmp_path).read_records("rationales")} == given


def test_a_refused_second_sample_leaves_the_question_without_a_rationale(tmp_path):
    refusal = dspy.LMInvalidRequestError("content filter", model="dummy", provider="dummy")
    found, counts = ask(Run(tmp_path), SamplingLM("no use", refusal), *"abcde", check=True)
    assert found == dict.fromkeys("abcde", "")
    assert (counts.refused, counts.retried, counts.useless) == (5, 5, {"answer missing": 5})


@pytest.mark.parametrize("threads", [1, 4])
def test_every_question_is_checked_against_its_own_answer(tmp_path, threads):
    lm = SamplingLM(GOOD, "This is answer b.")
    found, counts = ask(Run(tmp_path), lm, *"abc", check=True, num_threads=threads)
    assert found == {"a": GOOD, "b": "This is answer b.", "c": ""}
    assert (counts.retried, counts.useless, len(lm.sent)) == (2, {"answer missing": 1}, 5)


def test_the_whole_guide_must_fit_the_window_to_the_last_token(tmp_path):
    words = SimpleNamespace(count_tokens=lambda text: len(text.split()))
    for window, fits in ((11, True), (10, False)):  # Why a? answer a. Heat kills yeast, which is answer a.
        words.window = window
        found, counts = ask(Run(tmp_path / str(window)), scripted(rationale=GOOD), "a", check=True, encoder=words)
        assert found == {"a": GOOD if fits else ""}
        assert counts.useless == ({} if fits else {"longer than the encoder's window": 1})
