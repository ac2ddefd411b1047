"""A query encoder is trained from every engine without a write to it; a killed engine loses nothing."""

import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import Rerank, aligned_retriever
from radio_dspy.core.errors import StoreError
from radio_dspy.models.bi_encoder import PassageVectors
from radio_dspy.models.encoder import Encoder
from tests.conftest import LaunchableLM
from tests.retrievers.stores.engines import ENGINES, PgVector
from tests.retrievers.test_aligned import never, optimizer
from tests.settings import radio_of

QUESTIONS = 8


def student(retriever, encoder):
    return RetrieveRerankAnswer(retriever, Rerank(encoder, "bi-encoder"), candidates=10, k=3)


@pytest.mark.parametrize("name", ENGINES)
def test_a_query_side_is_aligned_without_a_write(name, tmp_path, topic, small, monkeypatch):
    engine = ENGINES[name](tmp_path)
    try:
        # Qdrant's local client divides what it compares by cosine by its length, in place, at every search.
        metric = engine.metrics[1] if name == "qdrant" else ""
        engine.fill("passages", topic.passages, small.encode_passages(topic.passages), metric)
        retriever, before = engine.open("passages", small), engine.state("passages")
        monkeypatch.setattr(Encoder, "encode_passages", never)
        monkeypatch.setattr(PassageVectors, "encode", never)
        program = optimizer(tmp_path / "run", epochs=1).compile(
            student(retriever, small), trainset=topic.train[:QUESTIONS], valset=topic.test[:3]
        )
        found = aligned_retriever(program)
        asked = [one.question for one in topic.test[:3]]
        assert found.store is retriever.store
        for new, old in zip(found.search(asked, 10), retriever.search(asked, 10), strict=True):
            assert len(new.ids) == 10
            assert new.scores != pytest.approx(old.scores, abs=1e-4)
        assert before[0] >= len(topic.passages)
        assert engine.state("passages") == before
    finally:
        engine.close()


def noting(topic, before):
    """An LM whose rationales name the answer; ``before`` is called with the number of each call, first."""
    lm = LaunchableLM({one.question: {"rationale": f"The reason: {one.answers[0]}."} for one in topic.train})
    asked, complete = [], lm._engine_spec._complete_messages

    def noted(messages):
        asked.append(str(messages))
        before(len(asked))
        return complete(messages)

    lm._engine_spec._complete_messages = noted
    return lm, asked


def test_postgresql_is_killed_in_the_middle_of_a_compile_which_goes_on_later(tmp_path, topic, small):
    engine = PgVector(tmp_path)
    try:
        engine.fill("passages", topic.passages, small.encode_passages(topic.passages))
        before = engine.state("passages")
        lm, asked = noting(topic, lambda number: engine.kill() if number == 4 else None)
        settings = {"gate": False, "run_dir": tmp_path / "run", "epochs": 1, "max_length": 32, "candidates": 8}
        given = {"trainset": topic.train[:QUESTIONS], "valset": topic.test[:3]}

        def compiled():
            return radio_of(lm, encoder=small, **settings).compile(
                student(engine.open("passages", small), small), **given
            )

        program = student(engine.open("passages", small), small)
        with pytest.raises(StoreError, match=r"table passages: .*the same compile goes on from there"):
            radio_of(lm, encoder=small, **settings).compile(program, **given)
        paid = len(asked)
        assert paid >= 4
        with pytest.raises(StoreError, match="table passages"):  # still down: nothing is asked again
            compiled()
        engine.start()
        aligned = compiled()
        assert len(asked) == paid == len(set(asked))  # each once, in all three
        assert len((tmp_path / "run" / "rationales.jsonl").read_text().splitlines()) == paid
        assert aligned.rerank.weights.checkpoint != program.rerank.weights.checkpoint
        assert engine.state("passages") == before
    finally:
        engine.close()
