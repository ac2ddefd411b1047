"""What each part of RADIO is worth: signals, weights, samplings, losses, guards, gate, on labelled questions.

    python benchmarks/ablation.py DATA OUT [--index INDEX] [--seeds 1 2 3] [--rows rationale w=0.75] [--questions 600]

DATA is a folder with corpus.jsonl, train.jsonl, dev.jsonl and rationales_*.jsonl (EntailmentBank in FlashRAG's form).
Every run is kept in OUT the moment it is done; run the command again to go on, or to print the table. A row trains a
bi-encoder (all-MiniLM-L6-v2, its query side) on the first N training questions with each seed and ranks the dev
questions' candidates. The gate decides on 200 further training questions, by their labels and by the teacher.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import dspy
import numpy as np

import radio_dspy as radio
from radio_dspy.distillation import (
    AnswerContainment,
    AnswerCorrectness,
    AnswerLikelihood,
    AnswerSimilarity,
    Labels,
    RationaleSimilarity,
    RetrievalScore,
)
from radio_dspy.distillation.gate.decision import Gate, decide
from radio_dspy.distillation.gate.metrics import by_labels, by_teacher
from radio_dspy.distillation.teacher.ranking import fused_rankings
from radio_dspy.distillation.training.averaging import mix_weights
from radio_dspy.retrievers.requests import rank_requests

CANDIDATES = 20  # reranked for a dev question
HELD_OUT = 200
LM_QUESTIONS, LM_DEPTH = (
    100,
    10,
)  # signals that ask the LM about every passage: so many questions, so many passages each
BASE: dict[str, Any] = {
    "tower": "query",
    "sampling": "shift_all_neg",
    "rationale_weight": 0.5,
    "learning_rate": 3e-5,
    "epochs": 2,
    "groups_per_step": 32,
    "accumulation_steps": 1,
    "max_length": 128,
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Its name.
        settings: What differs from ``BASE``.
        signals: Makes the teacher's signals with weights; None is RADIO's own (rationale and retrieval score).
        questions: Fewer training questions, for signals that ask an LM about every passage.
        gate: Also judge what comes back behind the gate.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    signals: Callable[[Setup], dict[Any, float]] | None = None
    questions: int | None = None
    gate: bool = False


class RememberingEncoder(radio.Encoder):
    """Encodes each query once: every row asks about the same questions and guides."""

    _vectors: ClassVar[dict[str, Any]] = {}

    def encode_queries(self, texts: Sequence[str], *, show_progress: bool = False) -> Any:
        """See ``Encoder``."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
            self._vectors.update(zip(missing, super().encode_queries(missing), strict=True))
        return np.stack([self._vectors[text] for text in texts])


class Setup:
    """Data, index and base, read once."""

    def __init__(self, data: Path, out: Path, index: Path | None, questions: int) -> None:
        self.out = out
        self.stack = contextlib.ExitStack()
        self._lm: dspy.LM | None = None
        index = index or out / "index"
        if not index.exists():
            radio.FaissRetriever.build(
                radio.load_corpus(data / "corpus.jsonl"), "all-MiniLM-L6-v2", show_progress=True
            ).save(index)
        self.retriever = radio.FaissRetriever.load(index, encoder=RememberingEncoder("all-MiniLM-L6-v2"))
        self.encoder = self.retriever.encoder
        train = radio.load_questions(data / "train.jsonl")
        self.train, self.held_out = train[:questions], train[questions : questions + HELD_OUT]
        self.dev = radio.load_questions(data / "dev.jsonl")
        rows = [json.loads(line) for line in next(data.glob("rationales_*.jsonl")).read_text().splitlines()]
        self.rationales = {str(row["id"]): row["rationale"] for row in reversed(rows)}
        self.judge = by_labels(rank_requests(self.dev, self.retriever, CANDIDATES))
        gate_requests = rank_requests(self.held_out, self.retriever, CANDIDATES)
        self.gate_requests = [replace(one, rationale=self.rationales.get(one.id, "")) for one in gate_requests]
        self.rerank = radio.Rerank(self.encoder, architecture="bi-encoder")
        self.base = statistics.mean(self.judge(self.rerank.weights))

    @property
    def lm(self) -> dspy.LM:
        """The local LM, started at its first use."""
        if self._lm is None:
            self._lm = self.stack.enter_context(radio.local_lm(max_tokens=16))
        return self._lm

    def run(self, row: Row, seed: int, folder: Path) -> dict[str, Any]:
        """Train one row with one seed; give dev's nDCG@10 without a gate and behind each gate."""
        train = self.train[: row.questions]
        signals = row.signals(self) if row.signals else None
        known = {str(example.id) for example in train}
        optimizer = radio.RADIO(
            rationale_lm=False,
            encoder=self.encoder,
            retriever=self.retriever,
            rationales={key: text for key, text in self.rationales.items() if key in known},
            signals=signals,
            gate=False,
            run_dir=folder,
            seed=seed,
            show_progress=False,
            **{**BASE, **row.settings},
        )
        started = time.perf_counter()
        student = radio.RetrieveRerankAnswer(self.retriever, self.rerank, candidates=CANDIDATES)
        aligned: Any = optimizer.compile(student, trainset=train, valset=self.dev)
        trained = aligned.rerank.weights
        teacher = signals or {
            RationaleSimilarity(self.encoder, index=self.retriever): row.settings.get("rationale_weight", 0.5),
            RetrievalScore(): 1 - row.settings.get("rationale_weight", 0.5),
        }
        result = {
            "row": row.name,
            "seed": seed,
            "trained": statistics.mean(self.judge(trained)),
            "report": optimizer.report.as_dict() if optimizer.report else {},
        }
        judges = {"labels": by_labels(self.gate_requests)} if row.gate else {}
        by_lm = any(isinstance(one, AnswerLikelihood | AnswerCorrectness) for one in teacher)  # takes hours
        if row.gate and not by_lm:
            judges["teacher"] = by_teacher(self.gate_requests, fused_rankings(self.gate_requests, teacher))
        candidates = self._mixtures(trained, folder) if row.gate else {}
        for name, judge in judges.items():
            values = {share: judge(weights) for share, weights in candidates.items()}
            decision = decide(values, f"nDCG@10 ({name})", Gate())
            chosen = next(one.share for one in decision.candidates if one.name == decision.chosen)
            result[f"gate by {name}"] = statistics.mean(self.judge(candidates[chosen]))
            result[f"decision by {name}"] = decision.sentence
        result["seconds"] = round(time.perf_counter() - started, 1)
        return result

    def _mixtures(self, trained: Any, folder: Path) -> dict[float, Any]:
        """The gate's candidates by their share of the trained weights."""
        found = {0.0: self.rerank.weights, 1.0: trained}
        for share in Gate().mixtures:
            found[share] = trained.with_checkpoint(folder / f"reranker-mixture-{share}")
            if not Path(found[share].checkpoint).exists():
                mix_weights(self.rerank.weights, trained, share, Path(found[share].checkpoint))
        return found


def rows() -> list[Row]:
    """The table's lines."""

    def alone(make: Callable[[Setup], Any]) -> Callable[[Setup], dict[Any, float]]:
        return lambda setup: {make(setup): 1.0}

    def fused(make: Callable[[Setup], Any], weight: float = 0.5) -> Callable[[Setup], dict[Any, float]]:
        return lambda setup: {make(setup): weight, RetrievalScore(): 1 - weight}

    def rationale(setup: Setup) -> Any:
        return RationaleSimilarity(setup.encoder, index=setup.retriever)

    def answer(setup: Setup) -> Any:
        return AnswerSimilarity(setup.encoder, index=setup.retriever)

    def likelihood(setup: Setup) -> Any:
        return AnswerLikelihood(setup.lm, depth=LM_DEPTH, keep=setup.out / "likelihood.jsonl")

    def correctness(setup: Setup) -> Any:
        return AnswerCorrectness(setup.lm, depth=LM_DEPTH, keep=setup.out / "correctness.jsonl")

    few = LM_QUESTIONS
    whole = {
        "tower": "both",
        "sampling": "shift",
        "learning_rate": 5e-5,
        "groups_per_step": 16,
        "epochs": 1,
    }
    return [
        Row("fused: rationale (w=0.5)", gate=True),
        Row("alone: retrieval score (w=0)", signals=alone(lambda _: RetrievalScore())),
        Row("w=0.25", {"rationale_weight": 0.25}),
        Row("w=0.75", {"rationale_weight": 0.75}),
        Row("alone: rationale (w=1)", {"rationale_weight": 1.0}, gate=True),
        Row("alone: answer similarity", signals=alone(answer), gate=True),
        Row("fused: answer similarity", signals=fused(answer)),
        Row(
            "fused: rationale and answer",
            signals=lambda setup: {rationale(setup): 0.25, answer(setup): 0.25, RetrievalScore(): 0.5},
        ),
        Row("alone: answer containment", signals=alone(lambda _: AnswerContainment())),
        Row("fused: answer containment", signals=fused(lambda _: AnswerContainment())),
        Row("alone: labels (upper bound)", signals=alone(lambda _: Labels())),
        Row("fused: labels (upper bound)", signals=fused(lambda _: Labels())),
        Row("sampling: shift", {"sampling": "shift"}),
        Row("sampling: iteration", {"sampling": "iteration"}),
        Row("loss: margin", {"loss": "margin"}),
        Row("loss: listwise, 50 candidates", {"loss": "listwise", "sampling": "all"}),
        Row(
            "loss: listwise, 50 candidates and 50 random",
            {"loss": "listwise", "sampling": "all", "random_negatives": 50},
        ),
        Row("random negatives: 20", {"random_negatives": 20}),
        Row("in-batch negatives", {"in_batch_negatives": True}),
        Row("guards off", {"guards": False}),
        Row(f"fused: rationale, {few} questions", questions=few),
        Row(f"alone: answer likelihood, {few} questions", signals=alone(likelihood), questions=few),
        Row(f"fused: answer likelihood, {few} questions", signals=fused(likelihood), questions=few),
        Row(f"alone: answer correctness, {few} questions", signals=alone(correctness), questions=few),
        Row(f"fused: answer correctness, {few} questions", signals=fused(correctness), questions=few),
        Row("paper's recipe, both towers", {"tower": "both", "sampling": "shift", "guards": False}),
        # For --questions 1313, which leaves none for a gate.
        Row("both towers at 5e-5", whole),
        Row("both towers at 5e-5, average of 3", {**whole, "averaged_runs": 3}),
        Row("both towers at 5e-5, average of 6", {**whole, "averaged_runs": 6}),
    ]


def table(out: Path, base: float) -> str:
    """All runs so far as Markdown: mean over the seeds, lowest and highest, against the base."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("runs/*.json")):
        run = json.loads(path.read_text())
        found.setdefault(run["row"], []).append(run)

    def cell(runs: list[dict[str, Any]], key: str) -> str:
        gains = [run[key] - base for run in runs if key in run]
        return f"{statistics.mean(gains):+.3f} ({min(gains):+.3f} to {max(gains):+.3f})" if gains else ""

    lines = [
        f"base and first stage: nDCG@10 {base:.3f}; gains on dev, mean (lowest to highest)",
        "| row | seeds | trained | gate by labels | gate by the teacher |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows():
        if row.name in found:
            runs = found[row.name]
            cells = [cell(runs, key) for key in ("trained", "gate by labels", "gate by teacher")]
            lines.append(f"| {row.name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--index", type=Path, help="a folder that `radio-dspy index` wrote; else one is built in OUT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", nargs="+", help="only rows whose name contains one of these")
    parser.add_argument("--questions", type=int, default=600)
    options = parser.parse_args()
    (options.out / "runs").mkdir(parents=True, exist_ok=True)
    setup = Setup(options.data, options.out, options.index, options.questions)
    dspy.disable_logging()
    with setup.stack:
        run_all(setup, options)
    print(table(options.out, setup.base))


def run_all(setup: Setup, options: argparse.Namespace) -> None:
    """Run every row with every seed that is not there yet."""
    for seed in options.seeds:  # a whole table after the first seed
        for number, row in enumerate(rows()):
            path = options.out / "runs" / f"{number:02d}-{seed}.json"
            if path.exists() or (options.rows and not any(part in row.name for part in options.rows)):
                continue
            folder = options.out / f"run-{number:02d}-{seed}"
            result = setup.run(row, seed, folder)
            path.write_text(json.dumps(result, indent=1))
            for checkpoint in folder.glob("reranker-*"):
                shutil.rmtree(checkpoint)
            print(
                f"{row.name}, seed {seed}: {result['trained'] - setup.base:+.4f} in {result['seconds']} s", flush=True
            )


if __name__ == "__main__":
    main()
