"""Replies without field markers are streamed as they come."""

import asyncio
from types import SimpleNamespace

import dspy
import pytest
from dspy.streaming import StreamResponse

import radio_dspy as radio
from radio_dspy.core.errors import SettingsError

QUESTION = "What colour is the sky?"


def fed(pieces, field="answer", finish=True):
    """What a listener gives for these pieces, one after the other."""
    listener = radio.PlainStreamListener(field, predict_name="answer")
    chunks = [
        SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=piece), finish_reason=None)])
        for piece in pieces
    ]
    if finish:
        end = SimpleNamespace(delta=SimpleNamespace(content=None), finish_reason="stop")
        chunks += [SimpleNamespace(choices=[end]), SimpleNamespace(choices=[])]
    return [part for part in [*map(listener.receive, chunks), listener.finalize()] if part is not None]


@pytest.mark.parametrize(
    "pieces",
    [
        ["The", " sky", " is", " blue", "."],
        ["Answer", ":", " The sky", " is blue."],
        ["**An", "swer:** The ", "sky ", "is blue.", "\n"],
        ["\n", "The sky is", " ", "blue."],
        ["The sky is blue."],
    ],
)
def test_the_pieces_are_the_value_that_the_adapter_parses(pieces):
    parts = fed(pieces)
    parsed = radio.PlainAdapter().parse(dspy.Signature("question -> answer"), "".join(pieces))
    assert "".join(part.chunk for part in parts) == parsed["answer"] == "The sky is blue."
    assert [part.is_last_chunk for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {(part.predict_name, part.signature_field_name) for part in parts} == {("answer", "answer")}


def test_a_word_that_begins_like_the_fields_name_is_no_name():
    assert [part.chunk for part in fed(["Answ", "ers", " vary"])] == ["Answers", " vary", ""]


@pytest.mark.parametrize(
    "pieces",
    [
        ["<th", "ink>Is it", " red? No.</th", "ink>", "\n\nThe sky", " is blue."],
        ["Answer: ", "<think>Red?", "</think>The sky is blue."],
        [
            "<|chan",
            "nel|>analysis<|mess",
            "age|>Red?<|end|><|start|>assistant<|channel|>final<|message|>The sky",
            " is blue.",
        ],
    ],
)
def test_thoughts_are_not_streamed(pieces):
    assert "".join(part.chunk for part in fed(pieces)) == "The sky is blue."


def test_thoughts_that_show_only_at_their_end_are_followed_by_the_value():
    assert [part.chunk for part in fed(["Is it red?", "</think>", "The sky"])] == ["Is it red?", "The sky", ""]


def test_thoughts_without_an_end_are_no_value():
    assert "".join(part.chunk for part in fed(["<think>Is", " it red?"])) == ""


def test_what_is_there_when_the_reply_breaks_off_is_given():
    parts = fed(["Answer"], finish=False)
    assert [(part.chunk, part.is_last_chunk) for part in parts] == [("Answer", True)]
    assert fed([], finish=False) == []


def test_a_listener_that_is_used_again_begins_anew():
    listener = radio.PlainStreamListener("answer", allow_reuse=True)

    def piece(content, finish=None):
        return SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=content), finish_reason=finish)])

    usage = SimpleNamespace(choices=[])
    for _ in range(2):
        parts = [
            listener.receive(one) for one in (piece("blue "), piece("sky"), piece(None, "stop"), usage, piece(None))
        ]
        assert [part and part.chunk for part in parts] == ["blue", " sky", "", None, None]
        assert listener.stream_start  # else streamify takes the reply for one that was not streamed


@pytest.fixture(scope="module")
def local():
    """What a block of ``local_lm`` sets: the LM, uncached, and its adapter, which is left at a test's start."""
    with radio.local_lm(max_tokens=8, context_tokens=1024, threads=1) as lm:
        yield {"lm": lm.copy(cache=False), "adapter": dspy.settings.adapter}


async def streamed(program, listener):
    return [part async for part in dspy.streamify(program, stream_listeners=[listener])(question=QUESTION)]


def test_a_program_with_the_local_lm_streams_its_answer(index, small, local):
    program = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=5, k=1)
    listener = radio.PlainStreamListener("answer", allow_reuse=True)
    with dspy.context(**local):
        first, second = (asyncio.run(streamed(program, listener)) for _ in range(2))
    for found in (first, second):
        parts = [part for part in found if isinstance(part, StreamResponse)]
        assert len(parts) > 2
        assert "".join(part.chunk for part in parts) == found[-1].answer
        assert [part.is_last_chunk for part in parts].index(True) == len(parts) - 1


def test_a_reply_from_the_cache_comes_whole(local):
    program = dspy.Predict("question -> answer")
    with dspy.context(**local | {"lm": local["lm"].copy(cache=True)}):
        answer = program(question=QUESTION).answer
        found = asyncio.run(streamed(program, radio.PlainStreamListener("answer")))
    assert [part.answer for part in found if isinstance(part, dspy.Prediction)] == [answer]
    assert not any(isinstance(part, StreamResponse) and part.chunk for part in found)


@pytest.mark.parametrize(
    ("signature", "adapter", "message"),
    [
        ("question -> answer", dspy.ChatAdapter(), "is asked through ChatAdapter: give dspy.streaming.StreamListener"),
        ("question -> answer, reason", None, r"'answer' is not: its outputs are \['answer', 'reason'\]"),
    ],
)
def test_a_reply_that_is_not_plain_is_refused(local, signature, adapter, message):
    with dspy.context(**local | ({"adapter": adapter} if adapter else {})):
        found = streamed(dspy.Predict(signature), radio.PlainStreamListener("answer"))
        with pytest.raises(SettingsError, match=message):
            asyncio.run(found)


def test_dspys_own_listener_says_that_it_cannot(local):
    """What the documentation says of it; if it ever can, the class here is not needed."""
    program = dspy.Predict("question -> answer")
    with dspy.context(**local), pytest.raises(ValueError, match="Unsupported adapter for streaming"):
        asyncio.run(streamed(program, dspy.streaming.StreamListener("answer")))
