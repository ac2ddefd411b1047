"""A backend that misbehaves in every way at once: nothing is lost, nothing doubled, and the end is one clear error."""

import re
import time
from collections import Counter

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.core.errors import LanguageModelError
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.lm import calls as bulk
from radio_dspy.runs.run import Run
from tests.fault_server import (
    ALL_KINDS,
    BUSY,
    BUSY_NO_HINT,
    EMPTY,
    ENDLESS,
    NO_JSON,
    OTHER_SHAPE,
    TRANSPORT,
    TRUNCATED,
    UNREADABLE,
    USELESS,
    FaultServer,
    mixed,
)
from tests.stub_servers import KEY

ENGINES = ("auto", "litellm")  # "auto" is DSPy's own engine here
_NUMBER = re.compile(r"loaf (\d+)")


def questions(count):
    return [(f"q{number}", f"Why was loaf {number} flat?", (f"culture {number}",)) for number in range(count)]


def rationale_of(number):
    return f"Hot water kills yeast, so loaf {number} stays flat: what lived in it was culture {number}"


def brain(prompt):
    """The rationale of the last loaf that is named, in the form that was asked for."""
    text = rationale_of(_NUMBER.findall(prompt)[-1])
    if "JSON object" in prompt:
        return f'{{"rationale": "{text}"}}'
    return f"[[ ## rationale ## ]]\n{text}\n\n[[ ## completed ## ]]"


def lm_of(server, engine="auto", **settings):
    settings = {"num_retries": 8, "timeout": 1.0, "cache": False, **settings}
    return dspy.LM("openai/gpt-4o-mini", engine=engine, api_base=server.url, api_key=KEY, **settings)


def explain_all(asked, lm, folder, num_threads=1, **options):
    return explain(
        asked,
        Run(folder),
        lm=lm,
        extractor=radio.RationaleExtractor(),
        given={},
        num_threads=num_threads,
        show_progress=False,
        **options,
    )


@pytest.fixture(scope="module", autouse=True)
def _litellm():
    import litellm  # noqa: F401  # its import takes seconds, which no time-out should see


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between tries, which are 40 times shorter than what is asked for."""
    asked = []

    def pause(seconds):
        asked.append(seconds)
        time.sleep(seconds / 40)
        return True

    for module in ("radio_dspy.lm.waiting", "radio_dspy.lm.replies", "radio_dspy.lm.calls"):
        monkeypatch.setattr(f"{module}.pause", pause)
    return asked


def check(found, counts, asked, folder):
    """Every question has one record and its own rationale, or none, by a rule that is counted."""
    records = Run(folder).read_records("rationales")
    assert Counter(record["id"] for record in records) == Counter(key for key, _, _ in asked)
    assert counts.written == len(asked)
    assert set(found) == {key for key, _, _ in asked}
    missing = 0
    for key, text in found.items():
        assert text in ("", rationale_of(key.removeprefix("q")))
        missing += not text
    assert missing == sum(counts.useless.values()) + counts.empty
    assert counts.refused == 0
    return missing


class TestMixedFaults:
    def test_sixty_rationales_at_thirty_percent(self, tmp_path, pauses):
        asked = questions(60)
        with FaultServer(brain, mixed(0.3), seed=3) as server:
            found, counts = explain_all(asked, lm_of(server), tmp_path, num_threads=16)
        assert check(found, counts, asked, tmp_path) <= 2
        assert len(set(server.outcomes) - {"answered"}) >= 10

    def test_the_same_seed_gives_the_same_faults(self, tmp_path, pauses):
        outcomes = []
        for run in range(2):
            # Without the two that depend on time: whom a closed port turns away besides, and who waits too long.
            with FaultServer(brain, mixed(0.3, (*TRANSPORT[3:], *UNREADABLE, *USELESS)), seed=5) as server:
                explain_all(questions(20), lm_of(server, timeout=20), tmp_path / str(run), num_threads=4 + 4 * run)
            outcomes.append(server.outcomes)
        assert outcomes[0] == outcomes[1]

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("engine", ENGINES)
    def test_five_hundred_at_thirty_percent_with_real_pauses(self, tmp_path, engine, record_property):
        asked = questions(500)
        with FaultServer(brain, mixed(0.3), seed=11) as server:
            found, counts = explain_all(asked, lm_of(server, engine, timeout=3.0), tmp_path, num_threads=32)
        missing = check(found, counts, asked, tmp_path)
        record_property("outcomes", dict(server.outcomes))
        print(engine, dict(server.outcomes), "useless", counts.useless, "retried", counts.retried)  # noqa: T201
        assert missing <= 10
        assert set(server.outcomes) == {*ALL_KINDS, "answered"}


class TestEachKind:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("kind", [*TRANSPORT, EMPTY, NO_JSON])
    def test_what_may_pass_is_tried_again(self, tmp_path, pauses, engine, kind):
        asked = questions(6)
        with FaultServer(brain, {kind: 0.4}, seed=1) as server:
            found, counts = explain_all(asked, lm_of(server, engine, timeout=0.4), tmp_path, num_threads=3)
        assert server.outcomes[kind] > 0
        assert check(found, counts, asked, tmp_path) == 0

    @pytest.mark.parametrize("kind", [OTHER_SHAPE, TRUNCATED, ENDLESS])
    def test_what_came_and_is_no_use_is_asked_for_once_more_and_then_counted(self, tmp_path, pauses, kind):
        asked = questions(12)
        with FaultServer(brain, {kind: 0.5}, seed=2) as server:
            found, counts = explain_all(asked, lm_of(server), tmp_path, num_threads=4)
        missing = check(found, counts, asked, tmp_path)
        assert 0 < missing < 12
        assert counts.retried >= missing
        # At most two samples, each at most twice: ChatAdapter asks again in JSON where it could not read the reply.
        assert server.requests <= 4 * len(asked)

    @pytest.mark.parametrize("kind", [EMPTY, NO_JSON])
    def test_a_reply_that_is_no_json_is_asked_for_again_as_often_as_num_retries_says(self, tmp_path, pauses, kind):
        """DSPy's own engine gives such a reply up at once: one gateway page would have ended a run of 500 questions."""
        with FaultServer(brain, {kind: 1.0}) as server:
            with pytest.raises(LanguageModelError, match="is not JSON"):
                explain_all(questions(5), lm_of(server, num_retries=3), tmp_path)
            assert server.requests == 4
        assert pauses == [1.0, 2.0, 4.0]


class TestPauses:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_they_double(self, tmp_path, pauses, engine):
        with FaultServer(brain, {BUSY_NO_HINT: 1.0}) as server:
            with pytest.raises(LanguageModelError, match="Rate limit reached"):
                explain_all(questions(5), lm_of(server, engine, num_retries=4), tmp_path)
            assert server.requests == 5
        assert pauses == [1, 2, 4, 8]

    def test_the_server_may_name_them(self, tmp_path, pauses):
        with FaultServer(brain, {BUSY: 1.0}) as server, pytest.raises(LanguageModelError):
            explain_all(questions(5), lm_of(server, num_retries=4), tmp_path)
        assert pauses == [0.0] * 4

    @pytest.mark.parametrize("threads", [1, 3])
    def test_no_more_requests_at_a_time_than_there_are_threads(self, tmp_path, threads):
        def slowly(prompt):
            time.sleep(0.02)
            return brain(prompt)

        with FaultServer(slowly) as server:
            explain_all(questions(12), lm_of(server), tmp_path, num_threads=threads)
        assert server.most == threads


class TestDownForGood:
    @pytest.mark.parametrize("status", [401, 403, 404])
    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_wrong_key_or_name_costs_one_call_whatever_the_threads(self, tmp_path, engine, status):
        with FaultServer(brain) as server:
            server.always = status
            with pytest.raises(LanguageModelError, match="openai/gpt-4o-mini failed") as caught:
                explain_all(questions(500), lm_of(server, engine), tmp_path, num_threads=16)
            assert server.requests == 1
        assert KEY not in str(caught.value)
        assert Run(tmp_path).read_records("rationales") == []

    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_backend_that_goes_down_ends_the_run_and_the_next_goes_on(self, tmp_path, pauses, engine):
        asked = questions(40)

        def until_twenty(prompt):
            if sum(server.answered.values()) >= 20:
                server.always = 503
            return brain(prompt)

        with FaultServer(until_twenty) as server:
            with pytest.raises(LanguageModelError, match=r"gpt-4o-mini failed .* are kept; compile again") as caught:
                explain_all(asked, lm_of(server, engine, num_retries=2), tmp_path, num_threads=4)
            assert isinstance(caught.value.__cause__, dspy.LMServerError)
            assert server.outcomes["503"] <= 4 * 3  # what was in flight, and its tries
            bought = Run(tmp_path).read_records("rationales")
            assert len(bought) == sum(server.answered.values()) >= 20
        with FaultServer(brain) as server:
            found, counts = explain_all(asked, lm_of(server, engine), tmp_path, num_threads=4)
            assert server.requests == 40 - len(bought)
        assert (counts.reused, counts.written) == (len(bought), 40 - len(bought))
        assert found == {key: rationale_of(key.removeprefix("q")) for key, _, _ in asked}

    def test_a_server_that_is_gone(self, tmp_path, pauses):
        with FaultServer(brain) as gone:
            pass
        with pytest.raises(LanguageModelError, match="openai/gpt-4o-mini failed"):
            explain_all(questions(500), lm_of(gone, num_retries=3), tmp_path, num_threads=16)
        assert pauses == [1, 2, 4]


def test_only_a_reply_that_is_no_json_is_asked_for_again():
    """What else goes by the name of a provider's error is for the caller to see."""
    for error in (dspy.LMProviderError("teapot", status=418), dspy.LMAuthError("key", status=200), KeyError("bug")):
        calls = []

        def ask(error=error, calls=calls):
            calls.append(1)
            raise error

        with pytest.raises(type(error)):
            bulk._readable(ask, 5)
        assert len(calls) == 1
