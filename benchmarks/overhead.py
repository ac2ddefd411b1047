"""What the library adds: a program against the same steps by hand, and the time of its import.

    python benchmarks/overhead.py [--questions 10] [--repeats 5]

The program is RetrieveRerankAnswer on the bundled demo set with an LM that answers at once. By hand it is
sentence-transformers for the question, a FAISS search, sentence-transformers' cross-encoder, dspy.Predict. Both must
give the LM the same passages. With models their work hides most of what Python does; so the same is measured with
precomputed vectors and without a reranker: then by hand one DSPy module is called, and the program calls
four (itself, retriever, reranker, Predict). The import is timed in fresh processes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import dspy
import faiss
import numpy as np
from dspy.utils import DummyLM
from measuring import Row, compared, interleaved, table
from search import Ready
from training import padded_cross_encoder

import radio_dspy as radio
from radio_dspy.lm.signatures import GenerateAnswer
from radio_dspy.models.weights import RerankerWeights

ENCODER = "all-MiniLM-L6-v2"
CANDIDATES, READ = 20, 5
HEAVY = ("torch", "transformers", "sentence_transformers", "faiss", "litellm")
IMPORT = "import time; began = time.perf_counter(); import radio_dspy; print(time.perf_counter() - began)"
LOADED = f"import sys, radio_dspy; print(*[one for one in {HEAVY!r} if one in sys.modules])"
Answer = Callable[[str], list[str]]  # from a question to the passages that the LM read


def with_models(passages: Sequence[radio.Passage], vectors: Any) -> tuple[Answer, Answer]:
    """The program and the steps by hand, each with a bi-encoder and a cross-encoder."""
    from sentence_transformers import SentenceTransformer

    program = radio.RetrieveRerankAnswer(
        radio.FaissRetriever.build(passages, ENCODER, vectors=vectors),
        radio.Rerank(ENCODER, "cross-encoder", new_head=True),
        candidates=CANDIDATES,
        k=READ,
    )
    encoder = SentenceTransformer(radio.weights(ENCODER))
    reranker = padded_cross_encoder(RerankerWeights(radio.weights(ENCODER), "cross-encoder", new_head=True))
    texts = [one.contents for one in passages]
    index = flat(vectors)
    predict = dspy.Predict(GenerateAnswer)

    def by_hand(question: str) -> list[str]:
        rows = index.search(encoder.encode([question], normalize_embeddings=True), CANDIDATES)[1][0]
        found = [texts[row] for row in rows]
        scores = reranker.predict([(question, text) for text in found])
        read = [found[position] for position in np.argsort(-scores)[:READ]]
        predict(question=question, passages=read)
        return read

    return through(program), by_hand


def without_models(passages: Sequence[radio.Passage], vectors: Any, asked: dict[str, Any]) -> tuple[Answer, Answer]:
    """The same where no model runs: vectors are there, and nothing is reranked."""
    index = radio.FaissRetriever.build(passages, Ready(asked), vectors=vectors)
    program = radio.RetrieveRerankAnswer(index, radio.NoRerank(), candidates=CANDIDATES, k=READ)
    texts, plain = [one.contents for one in passages], flat(vectors)
    predict = dspy.Predict(GenerateAnswer)

    def by_hand(question: str) -> list[str]:
        rows = plain.search(asked[question][None], CANDIDATES)[1][0]
        read = [texts[row] for row in rows][:READ]
        predict(question=question, passages=read)
        return read

    return through(program), by_hand


def through(program: dspy.Module) -> Answer:
    """Ask a program."""
    return lambda question: [one.contents for one in program(question=question).passages]


def flat(vectors: Any) -> Any:
    """A FAISS index."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def measure(*, questions: int = 10, repeats: int = 5) -> list[Row]:
    """Ask questions both ways, and import the library.

    Args:
        questions: Of the demo set, in each round.
        repeats: Rounds of the timing, and fresh processes.
    """
    demo = radio.datasets.demo()
    asked = [one.question for one in demo.train[:questions]]
    encoder = radio.Encoder(ENCODER)
    vectors = encoder.encode_passages(demo.passages)
    ready = dict(zip(asked, encoder.encode_queries(asked), strict=True))
    rows = []
    for title, (ours, by_hand) in {
        "bi-encoder, cross-encoder": with_models(demo.passages, vectors),
        "without models": without_models(demo.passages, vectors, ready),
    }.items():
        with dspy.context(lm=DummyLM({"": {"answer": "at once"}}), disable_history=True):
            same = sum(ours(one) == by_hand(one) for one in asked)
            work = {"ours": asking(ours, asked), "by hand": asking(by_hand, asked)}
            seconds = interleaved(work, repeats)
        ratio, spread = compared(seconds, "by hand", "ours")
        each = {name: f"{statistics.median(values) / len(asked) * 1e3:.2f} ms" for name, values in seconds.items()}
        added = statistics.median(one - other for one, other in zip(seconds["ours"], seconds["by hand"], strict=True))
        rows.append(
            Row(
                f"overhead, RetrieveRerankAnswer, {title}",
                f"{each['ours']} a question",
                f"by hand {each['by hand']}",
                ratio,
                1.15,
                "at most",
                f"{spread}; {added / len(asked) * 1e6:+.0f} us; same passages for {same} of {len(asked)} questions",
            )
        )
    return [*rows, *importing(repeats)]


def asking(answer: Answer, questions: Sequence[str]) -> Callable[[], Any]:
    """Ask them one after the other."""
    return lambda: [answer(one) for one in questions]


def importing(repeats: int) -> list[Row]:
    """The import in fresh processes, the first of which is for warmth, and what it brings in."""
    seconds = [float(fresh(IMPORT)) for _ in range(repeats + 1)][1:]
    middle = statistics.median(seconds)
    heavy = fresh(LOADED).split()
    spread = f"{min(seconds):.3f} to {max(seconds):.3f} s in {repeats} processes"
    return [
        Row("import radio_dspy", f"{middle:.3f} s", "seconds", middle, 0.3, "at most", spread),
        Row("import radio_dspy, heavy modules", str(len(heavy)), "none", len(heavy), 0, "at most", ", ".join(HEAVY)),
    ]


def fresh(statement: str) -> str:
    """What a new process prints."""
    return subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(table(measure(questions=options.questions, repeats=options.repeats)))


if __name__ == "__main__":
    main()
