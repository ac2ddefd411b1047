import json

import dspy
import numpy as np
import pytest
from dspy import lm15
from dspy.utils import DummyLM

from radio_dspy import local_lm
from radio_dspy.core.errors import DataError, LanguageModelError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import AnswerCorrectness, AnswerLikelihood, LMRanking
from radio_dspy.distillation.teacher import lm_signals
from radio_dspy.evaluation.metrics import exact_match
from radio_dspy.lm import local as lms
from radio_dspy.lm import logprobs
from radio_dspy.lm.logprobs import continuation_logprobs
from radio_dspy.rerankers import LMRerank
from radio_dspy.runs.run import Run
from tests.conftest import scripted
from tests.loopback import Handler, Loopback

QUESTION = "Why did the jug stay cold?"


def request(key="q", texts=("one", "two", "three"), **options):
    options = {"answers": ("evaporation",), **options}
    passages = tuple(Passage(f"{key}-{text}", f"{key} tells of {text}") for text in texts)
    return RankRequest(key, f"Why {key}?", passages, tuple(1.0 - i / 10 for i in range(len(passages))), **options)


class AnsweringLM(DummyLM):
    """Answers from the passage: the word ``three`` leads to the right answer, ``two`` to half of it."""

    def __init__(self, fail_at=None, error=None):
        super().__init__(
            {"three": {"answer": "evaporation"}, "two": {"answer": "slow evaporation"}, "": {"answer": "x"}}
        )
        self.calls, self.fail_at, self.error = 0, fail_at, error

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error or dspy.LMTransportError("connection refused", model="dummy", provider="dummy")
        return super().__call__(*args, **kwargs)


# Scores


@pytest.mark.parametrize("threads", [1, 4])
def test_correctness_is_the_token_f1_of_the_answer_from_each_passage_alone(threads):
    scores = AnswerCorrectness(AnsweringLM(), num_threads=threads).score([request("a"), request("b", ("three", "one"))])
    assert [one.dtype for one in scores] == [np.float32, np.float32]
    assert scores[0] == pytest.approx([0, 2 / 3, 1])
    assert scores[1] == pytest.approx([1, 0])


class DemonstratedLM(DummyLM):
    """Answers rightly where the prompt holds the demonstration."""

    def __call__(self, prompt=None, *, messages=None, **options):
        shown = any("Why brine?" in str(message["content"]) for message in messages)
        self.answers = {"": {"answer": "evaporation" if shown else "x"}}
        return super().__call__(prompt, messages=messages, **options)


def test_a_programs_own_prompt_answers_and_decides_what_is_kept(tmp_path):
    prompted = dspy.Predict("question, passages -> answer")
    prompted.demos = [dspy.Example(question="Why brine?", passages=["Salt."], answer="salt")]
    lm = DemonstratedLM({"": {"answer": "x"}})
    keep = tmp_path / "scores.jsonl"
    assert AnswerCorrectness(lm, keep=keep).score([request()])[0].tolist() == [0, 0, 0]
    assert AnswerCorrectness(lm, answer=prompted, keep=keep).score([request()])[0].tolist() == [1, 1, 1]
    assert len(keep.read_text().splitlines()) == 6


def test_the_best_of_several_answers_and_another_metric():
    several = request(answers=("heat", "slow evaporation"))
    assert AnswerCorrectness(AnsweringLM()).score([several])[0] == pytest.approx([0, 1, 2 / 3])
    assert AnswerCorrectness(AnsweringLM(), metric=exact_match).score([request()])[0].tolist() == [0, 0, 1]


def test_a_reply_that_cannot_be_read_scores_nothing():
    lm = DummyLM({"two": {"answer": "evaporation"}, "": {"nonsense": "evaporation"}})
    assert AnswerCorrectness(lm).score([request()])[0].tolist() == [0, 1, 0]


def test_the_lms_ranking_counts_from_n_down_to_one():
    lm = scripted(order="[2, 0, 1]")
    assert LMRanking(LMRerank(), lm).score([request()])[0].tolist() == [2, 1, 3]
    assert LMRanking(LMRerank(k=1), lm, depth=2).score([request()])[0].tolist() == [2, 1, 1]


def test_the_lm_ranks_with_answer_and_rationale_before_its_eyes():
    seen = []

    class Watched(DummyLM):
        def __call__(self, *args, messages=None, **kwargs):
            seen.append(messages[-1]["content"])
            return super().__call__(*args, messages=messages, **kwargs)

    LMRanking(LMRerank(), Watched({"": {"order": "[0]"}})).score([request(rationale="vapour takes heat along")])
    assert "vapour takes heat along" in seen[0]
    assert "evaporation" in seen[0]


def test_beyond_the_depth_comes_the_lowest_score_found():
    lm = AnsweringLM()
    scores = AnswerCorrectness(lm, depth=2).score([request(texts=("three", "two", "one"))])[0]
    assert scores == pytest.approx([1, 2 / 3, 2 / 3])
    assert lm.calls == 2


def test_no_candidates_no_scores():
    assert AnswerCorrectness(AnsweringLM()).score([request(texts=())])[0].shape == (0,)
    assert LMRanking(LMRerank(), scripted(order="[]")).score([request(texts=())])[0].shape == (0,)


# Failures


def refusal():
    return dspy.LMInvalidRequestError("content filter", model="dummy", provider="dummy")


def test_a_refused_passage_gets_the_lowest_score_found():
    lm = AnsweringLM(fail_at=3, error=refusal())
    scores = AnswerCorrectness(lm).score([request(texts=("three", "two", "one"))])[0]
    assert scores == pytest.approx([1, 2 / 3, 2 / 3])


def test_an_lm_that_refuses_everything_stops_the_run():
    class Refusing(DummyLM):
        def __call__(self, *args, **kwargs):
            raise refusal()

    with pytest.raises(LanguageModelError, match="content filter"):
        AnswerCorrectness(Refusing({})).score([request()])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failing_lm_stops_the_run_and_what_was_kept_is_not_asked_again(tmp_path, threads):
    path = tmp_path / "new" / "scores.jsonl"
    requests = [request("a"), request("b")]
    with pytest.raises(LanguageModelError, match=r"LMTransportError: .*are kept in .*scores\.jsonl"):
        AnswerCorrectness(AnsweringLM(fail_at=4), num_threads=threads, keep=path).score(requests)
    kept = Run(path.parent).read_records("scores")
    assert len(kept) == 3 if threads == 1 else kept
    lm = AnsweringLM()
    scores = AnswerCorrectness(lm, keep=path).score(requests)
    assert lm.calls == 6 - len(kept)
    assert np.concatenate(scores) == pytest.approx([0, 2 / 3, 1] * 2)
    assert AnswerCorrectness(lm, keep=path).score(requests)[1] == pytest.approx(scores[1])
    assert lm.calls == 6 - len(kept)
    with pytest.raises(LanguageModelError, match="are lost: give keep="):
        AnswerCorrectness(AnsweringLM(fail_at=1)).score(requests)


def test_kept_records_are_joined_by_id(tmp_path):
    AnswerCorrectness(AnsweringLM(), keep=tmp_path / "scores.jsonl").score([request("a", ("three",))])
    LMRanking(LMRerank(), scripted(order="[1, 0]"), keep=tmp_path / "scores.jsonl").score([request("b", ("x", "y"))])
    first, second = (json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines())
    assert first.pop("key") != second.pop("key")
    assert first.pop("crc") != second.pop("crc")
    assert first == {"signal": "answer_correctness", "id": "a", "passages": ["a-three"], "scores": [1.0]}
    assert second == {"signal": "lm_ranking", "id": "b", "passages": ["b-x", "b-y"], "scores": [1.0, 2.0]}


def test_what_decides_a_score_decides_whether_it_is_used_again(tmp_path):
    path = tmp_path / "scores.jsonl"

    def calls(one, *, metric=None, **settings):
        lm = AnsweringLM()
        lm.kwargs.update(settings)
        AnswerCorrectness(lm, metric=metric, keep=path).score([one])
        return lm.calls

    assert calls(request(texts=("one",))) == 1
    assert calls(request(texts=("one",))) == 0
    assert calls(request(texts=("one",), answers=("water",))) == 1
    assert calls(request(texts=("one",)), temperature=0.9) == 1
    assert calls(request(texts=("one",)), api_base="http://elsewhere") == 0
    assert calls(request(texts=("one",)), metric=exact_match) == 1
    changed = RankRequest("q", "Why q?", (Passage("q-one", "another text"),), (1.0,), answers=("evaporation",))
    assert calls(changed) == 1
    for rationale, expected in (("", 1), ("because", 1), ("because", 0)):
        before = path.read_bytes().count(b"\n")
        ranking = LMRanking(LMRerank(), scripted(order="[1, 0]"), keep=path)
        ranking.score([request(texts=("x", "y"), rationale=rationale)])
        assert path.read_bytes().count(b"\n") - before == expected


def test_what_was_refused_is_asked_again(tmp_path):
    path = tmp_path / "scores.jsonl"
    AnswerCorrectness(AnsweringLM(fail_at=2, error=refusal()), keep=path).score([request()])
    lm = AnsweringLM()
    assert AnswerCorrectness(lm, keep=path).score([request()])[0] == pytest.approx([0, 2 / 3, 1])
    assert lm.calls == 1


def test_a_full_disk_is_reported_as_what_it_is(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "append_record", full)
    with pytest.raises(OSError, match="No space left"):
        AnswerCorrectness(AnsweringLM(), keep=tmp_path / "scores.jsonl").score([request()])


def test_an_lm_whose_orders_cannot_be_read_is_no_teacher():
    questions = [request(key) for key in "abcd"]
    with pytest.raises(DataError, match="no order that can be read for question 'c'"):
        LMRanking(LMRerank(), scripted(order="I cannot say.")).score(questions)
    half = DummyLM([{"order": "[1, 0, 2]"}, {"order": "no"}, {"order": "no"}])
    assert LMRanking(LMRerank(), half).score(questions[:2])[1].tolist() == [0, 0, 0]


def test_bulk_calls_stay_out_of_trace_and_history():
    lm, trace = AnsweringLM(), []
    with dspy.context(trace=trace):
        AnswerCorrectness(lm).score([request()])
    assert trace == []
    assert lm.history == []


def test_settings_out_of_range_and_questions_without_an_answer():
    lm = AnsweringLM()
    for options, message in (
        ({"depth": 0}, "depth must be at least 1"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"keep": "scores.json"}, r"scores\.json: .* ends in \.jsonl"),
    ):
        with pytest.raises(SettingsError, match=message):
            AnswerLikelihood(lm, **options)
    with pytest.raises(DataError, match="Question 'q' has no answer"):
        AnswerLikelihood(lm).score([request(answers=("  ",))])
    assert lm.calls == 0
    assert LMRanking(LMRerank(), scripted(order="[1, 0]")).score([request(texts=("a", "b"), answers=())])[0][1] == 2


# Likelihoods


def test_likelihood_is_the_mean_over_tokens_and_the_best_over_answers(monkeypatch):
    asked = []

    def given(lm, prompt, continuation):
        asked.append((prompt, continuation))
        return {"long": [-1.0, -2.0, -3.0], "short": [-4.0]}[continuation]

    monkeypatch.setattr(lm_signals, "continuation_logprobs", given)
    scores = AnswerLikelihood(AnsweringLM()).score([request(texts=("one",), answers=("short ", "long"))])
    assert scores[0].tolist() == [-2.0]
    assert [answer for _, answer in asked] == ["short", "long"]
    assert "q tells of one" in asked[0][0]
    assert "Why q?" in asked[0][0]
    assert "long" not in asked[1][0]


def test_an_lm_without_logprobs_is_named_with_those_that_can():
    with pytest.raises(SettingsError, match=r"dummy does not give .*radio_dspy\.local_lm and a vLLM server can"):
        AnswerLikelihood(AnsweringLM()).score([request()])


@pytest.fixture(scope="module")
def model():
    with local_lm(threads=1) as lm:
        yield lm.copy(cache=False)


def test_the_likelihood_of_a_true_answer_exceeds_that_of_a_false_one_and_repeats(model):
    helpful = "Water seeped through the clay of the jug, and its evaporation took the heat along."
    passages = (Passage("a", "The jug stood in the kitchen of an old farmhouse."), Passage("b", helpful))
    (scores,) = AnswerLikelihood(model).score([RankRequest("q", QUESTION, passages, (1.0, 0.9), ("evaporation",))])
    assert scores[1] > scores[0] + 0.3
    assert scores.max() < 0
    (again,) = AnswerLikelihood(model).score([RankRequest("q", QUESTION, passages[::-1], (1.0, 0.9), ("evaporation",))])
    assert again.tolist() == scores[::-1].tolist()
    right, wrong = (continuation_logprobs(model, "What is the capital of France?", one) for one in ("Paris", "Oslo"))
    assert np.mean(right) > np.mean(wrong) + 0.5


def test_logprobs_are_those_of_the_unconstrained_distribution(model):
    """Each token against the whole distribution after the tokens before it, asked of the server step by step."""
    url, answer = lms._address(model.model), "cold water"
    shown = lms._post(f"{url}/apply-template", {"messages": [{"role": "user", "content": QUESTION}]})["prompt"]
    prompt = lms._post(f"{url}/tokenize", {"content": shown, "add_special": True, "parse_special": True})["tokens"]
    tokens = lms._post(f"{url}/tokenize", {"content": answer})["tokens"]
    expected = []
    for count, token in enumerate(tokens):
        body = {"prompt": prompt + tokens[:count], "n_predict": 1, "n_probs": 60_000, "temperature": 0}
        (step,) = lms._post(f"{url}/completion", body)["completion_probabilities"]
        whole = {one["id"]: one["logprob"] for one in step["top_logprobs"]}
        assert sum(np.exp(list(whole.values()))) == pytest.approx(1, abs=1e-3)
        expected.append(whole[token])
    found = continuation_logprobs(model, QUESTION, answer)
    assert found[0] == pytest.approx(expected[0], abs=1e-3)
    # Later tokens are computed one by one here and with the prompt there: quantised weights round differently.
    assert found == pytest.approx(expected, abs=0.3)


def test_the_models_own_reply_has_the_logprobs_it_was_written_with(model):
    config = lm15.Config(max_tokens=20, temperature=0.0, logprobs=1)
    reply = model(lm15.Request(model=model.model, messages=(lm15.Message.user("Name a colour."),), config=config))
    written = [token.logprob for token in reply.logprobs if token.token]
    assert continuation_logprobs(model, "Name a colour.", reply.text) == pytest.approx(written, abs=1e-6)


def test_replies_are_tokenised_as_they_stand(model):
    for reply in ("Zürich, a <|im_end|> b", ' "quoted" \\ and\nmore '):
        assert len(continuation_logprobs(model, QUESTION, reply)) > 3
    with pytest.raises(DataError, match="parts of a character"):
        continuation_logprobs(model, QUESTION, "東京")
    with pytest.raises(DataError, match="An empty reply"):
        continuation_logprobs(model, QUESTION, "")


def test_an_answer_in_another_script_is_passed_over(model):
    passages = (Passage("a", "Tokyo is the capital of Japan."),)
    both, one = (
        AnswerLikelihood(model).score([RankRequest("q", "Which city?", passages, (1.0,), answers)])[0].tolist()
        for answers in (("東京", "Tokyo"), ("Tokyo",))
    )
    assert both == one
    many = [RankRequest(f"q{i}", "Which city?", passages, (1.0,), ("東京",)) for i in range(3)]
    with pytest.raises(DataError, match="parts of a character"):
        AnswerLikelihood(model).score(
            [RankRequest(one.id, f"{one.id}?", passages, (1.0,), one.answers) for one in many]
        )


# vLLM, as its documentation describes it: no server of that kind can run here.


class _Handler(Handler):
    def do_POST(self):
        body = json.loads(self.body())
        self.stub.bodies.append(body)
        self.send_json(*self.stub.reply(body))


class Server(Loopback):
    """Answers with a status and a body, and keeps what it was asked."""

    handler = _Handler

    def __init__(self, reply):
        super().__init__()
        self.reply, self.bodies = reply, []

    def lm(self, name="hosted_vllm/small", **settings):
        return dspy.LM(name, api_base=f"{self.url}/v1", api_key="none", cache=False, **settings)


def vllm(body):
    user, assistant = body["messages"]
    shown = ["<s>", *user["content"].split(), "\n", *tokens_of(assistant["content"])]
    entries = [None]
    for position, text in enumerate(shown[1:], start=1):
        entries.append({str(position): {"logprob": -float(position), "rank": 1, "decoded_token": text}})
    return 200, {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "!"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": len(shown), "completion_tokens": 1, "total_tokens": len(shown) + 1},
        "prompt_logprobs": entries if "prompt_logprobs" in body else None,
    }


def openai(body):
    return 400, {"error": {"message": "Unknown parameter: 'prompt_logprobs'", "type": "invalid_request_error"}}


def too_long(body):
    message = "This model's maximum context length is 8 tokens."
    return 400, {"error": {"message": message, "type": "BadRequestError", "code": "context_length_exceeded"}}


def tokens_of(text):
    """Tokens as vLLM shows them: no space before a word, and nothing where a token holds a part of a character."""
    return [piece for word in text.split() for piece in (["", word] if word == "東" else [word])]


@pytest.mark.parametrize("engine", ["lm15", "litellm"])
@pytest.mark.parametrize("name", ["hosted_vllm/small", "openai/small"])
def test_vllm_gives_the_logprobs_of_the_prompts_last_tokens(engine, name):
    with Server(vllm) as server:
        assert continuation_logprobs(server.lm(name, engine=engine), "two words", "New 東 York") == [-4, -5, -6, -7]
    (body,) = server.bodies
    assert body["messages"][-1] == {"role": "assistant", "content": "New 東 York"}
    assert (body["prompt_logprobs"], body["continue_final_message"], body["add_generation_prompt"]) == (0, True, False)


def test_answer_likelihood_on_vllm():
    with Server(vllm) as server:
        asked = [request(texts=("one", "one two three"))]
        short, long = AnswerLikelihood(server.lm(), num_threads=2).score(asked)[0]
    assert short == long + 2


def test_a_server_that_refuses_prompt_logprobs_is_named():
    refused = r"a vLLM server can .*Unknown parameter: 'prompt_logprobs'"
    with Server(openai) as server, pytest.raises(SettingsError, match=refused):
        AnswerLikelihood(server.lm("openai/small")).score([request()])
    assert len(server.bodies) == 1


def test_a_prompt_that_is_too_long_is_a_refusal_and_not_an_lm_that_cannot():
    with Server(too_long) as server, pytest.raises(dspy.ContextWindowExceededError):
        continuation_logprobs(server.lm(), "two words", "York")


def test_a_template_that_changes_the_reply_is_named():
    entries = [
        None,
        {"1": {"logprob": -1.0, "decoded_token": "York"}},
        {"2": {"logprob": -1.0, "decoded_token": "</s>"}},
    ]
    with pytest.raises(SettingsError, match=r"read '</s>' where 'York' was given"):
        logprobs._last_logprobs(entries, "York", "small")
    assert logprobs._last_logprobs(entries[:2], "York", "small") == [-1.0]


@pytest.mark.parametrize(
    "name", ["folder.jsonl", "file/scores.jsonl", "x" * 300 + ".jsonl"], ids=["folder", "below", "long"]
)
def test_a_place_where_no_scores_can_be_kept_is_refused_at_once(tmp_path, name):
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="give another file for keep="):
        AnswerCorrectness(AnsweringLM(), keep=tmp_path / name)


@pytest.mark.parametrize("text", ['{"id": "a", "contents": "mine"}\n', '{"id": "a", "contents": "my only, unfinis'])
def test_nothing_is_added_to_a_file_of_other_lines_and_nothing_cut(tmp_path, text):
    path = tmp_path / "corpus.jsonl"
    path.write_text(text)
    lm = AnsweringLM()
    with pytest.raises(DataError, match="other lines than scores, give another file for keep="):
        AnswerCorrectness(lm, keep=path).score([request()])
    assert (lm.calls, path.read_text()) == (0, text)
