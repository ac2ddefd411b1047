"""The RAG program of DSPy's own tutorial, aligned without a change to its source, then its prompt optimized.

Run it with `python examples/stock_rag.py`; it needs `radio-dspy[local]`, the weights of the local LM, and `optuna` for
MIPROv2. About three minutes on two CPU cores. A 135M LM answers poorly: look at the steps, not at the figures.
"""

import dspy

import radio_dspy as radio
from radio_dspy.evaluation.metrics import sub_exact_match

data = radio.datasets.demo()
corpus = [one.contents for one in data.passages if one.id.startswith("kit")]
embedder = dspy.Embedder(radio.Encoder("all-MiniLM-L6-v2").encode_queries)
search = dspy.retrievers.Embeddings(embedder=embedder, corpus=corpus, k=10)


class RAG(dspy.Module):
    """As the tutorial has it, with its retriever as a global."""

    def __init__(self) -> None:
        self.respond = dspy.ChainOfThought("context, question -> response")

    def forward(self, question: str) -> dspy.Prediction:
        """Answer from what is found."""
        context = search(question).passages
        return self.respond(context=context, question=question)


def questions(examples: list[dspy.Example]) -> list[dspy.Example]:
    """Questions about the kitchen as the tutorial has them: with one gold response."""
    kitchen = [one for one in examples if one.id.startswith("kit")]
    return [dspy.Example(question=one.question, response=one.answer).with_inputs("question") for one in kitchen]


def answers_well(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> float:
    """Whether the gold response stands in the program's."""
    return sub_exact_match(prediction.response, [example.response])


def main() -> None:
    """Add the reranker, align it, then optimize the prompt and judge."""
    train, test = questions(data.train), questions(data.test)
    rerank = radio.Rerank("all-MiniLM-L6-v2", architecture="bi-encoder", k=3)
    rag = radio.with_rerank(RAG(), rerank, after="search")  # the one line

    with radio.local_lm(max_tokens=96) as lm, dspy.context(lm=lm, adapter=radio.PlainAdapter()):
        optimizer = radio.RADIO(epochs=1, learning_rate=3e-5, max_length=128, num_threads=1)
        aligned = optimizer.compile(rag, trainset=train, valset=test)
        print(optimizer.report)

        mipro = dspy.MIPROv2(
            metric=answers_well, auto=None, num_candidates=2, max_bootstrapped_demos=0, max_labeled_demos=1,
            num_threads=1,
        )  # fmt: skip
        prompted = mipro.compile(aligned, trainset=train[:3], valset=train[3:6], num_trials=1, minibatch=False)
        found = dspy.Evaluate(devset=test[:5], metric=answers_well, num_threads=1)(prompted)
        print(f"\nfound in {found.score:.0f} % of five responses")


if __name__ == "__main__":
    main()
