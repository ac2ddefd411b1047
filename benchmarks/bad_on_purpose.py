"""Runs that go wrong on purpose: does the gate return rankings that are no worse than the base's?

    python benchmarks/bad_on_purpose.py DATA INDEX [--questions 300] [--tower query]

DATA as for ablation.py, INDEX from `radio-dspy index`. Each run compiles without a valset, so the gate decides on
questions kept back from the training questions; the dev questions, which nothing was chosen by, judge what came back.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import dspy
from dspy.utils import DummyLM

import radio_dspy as radio
from radio_dspy.distillation import Labels
from radio_dspy.distillation.gate.metrics import by_labels
from radio_dspy.evaluation.significance import paired_bootstrap
from radio_dspy.retrievers.requests import rank_requests

SETTINGS: dict[str, Any] = {
    "rationale_lm": False,
    "sampling": "shift_all_neg",
    "learning_rate": 3e-5,
    "epochs": 2,
    "groups_per_step": 32,
    "accumulation_steps": 1,
    "max_length": 128,
    "show_progress": False,
}
WORDS = (
    "the",
    "of",
    "nickel",
    "seven",
    "under",
    "violin",
    "because",
    "maybe",
    "orbit",
    "zinc",
    "blue",
    "carpet",
    "and",
)


class BabblingLM(DummyLM):
    """Strings words together, and names the answer by the way, so that no check of the text can tell."""

    def __init__(self) -> None:
        super().__init__([])
        self._random = random.Random(0)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Answer any prompt."""
        self.answers = iter([{"rationale": " ".join(self._random.choices(WORDS, k=40))}])
        return super().__call__(*args, **kwargs)


def shuffled_labels(questions: list[dspy.Example]) -> list[dspy.Example]:
    """Every question with the labels of another one."""
    labels = [example.relevant for example in questions]
    random.Random(0).shuffle(labels)
    return [example.copy(relevant=label) for example, label in zip(questions, labels, strict=True)]


def main() -> None:
    """Run all and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--tower", choices=["query", "both"], default="query")
    options = parser.parse_args()
    retriever = radio.FaissRetriever.load(options.index)
    train = radio.load_questions(options.data / "train.jsonl")[: options.questions]
    dev = rank_requests(radio.load_questions(options.data / "dev.jsonl"), retriever, 20)
    judge = by_labels(dev)
    rerank = radio.Rerank(retriever.encoder, architecture="bi-encoder")
    base = list(judge(rerank.weights))
    runs: dict[str, tuple[dict[str, Any], list[dspy.Example]]] = {
        "learning rate 1e-2": ({"learning_rate": 1e-2}, train),
        "shuffled labels": ({"signals": {Labels(): 1.0}, "learning_rate": 1e-4, "epochs": 6}, shuffled_labels(train)),
        "babbling LM": ({"rationale_lm": BabblingLM(), "rationale_weight": 1.0}, train),
        "babbling LM, guards off": (
            {"rationale_lm": BabblingLM(), "rationale_weight": 1.0, "guards": False, "learning_rate": 1e-4},
            train,
        ),
        "ten training questions": ({"epochs": 10}, train[:10]),
        "20 epochs": ({"epochs": 20, "learning_rate": 1e-4}, train[: options.questions // 3]),
    }
    dspy.disable_logging()
    for name, (settings, questions) in runs.items():
        optimizer = radio.RADIO(
            encoder=retriever.encoder,
            retriever=retriever,
            tower=options.tower,
            **{**SETTINGS, **settings},
        )
        aligned: Any = optimizer.compile(radio.RetrieveRerankAnswer(retriever, rerank), trainset=questions)
        returned = list(judge(aligned.rerank.weights))
        gain = paired_bootstrap(base, returned)
        print(
            f"{name}: dev nDCG@10 {sum(base) / len(base):.3f} -> {sum(returned) / len(returned):.3f} "
            f"({gain.mean:+.3f}, {gain.low:+.3f} to {gain.high:+.3f})\n  {optimizer.report.decision}",
            flush=True,
        )


if __name__ == "__main__":
    main()
