"""Settings of ``RADIO`` that go together, each with the table that it rests on."""

from __future__ import annotations

from typing import TypedDict

from radio_dspy.distillation.groups import Sampling
from radio_dspy.distillation.settings import (
    PAPER_EPOCHS,
    PAPER_GROUPS_PER_STEP,
    PAPER_LEARNING_RATE,
    PAPER_MAX_LENGTH,
    Tower,
)
from radio_dspy.distillation.signals import AnswerSimilarity, RationaleSimilarity, RetrievalScore, Signal
from radio_dspy.encoders import TextEncoder, as_encoder
from radio_dspy.retrievers.faiss import FaissRetriever


class Preset(TypedDict, total=False):
    """Keyword arguments of ``RADIO``; ``{**preset, "epochs": 1}`` changes one."""

    encoder: TextEncoder
    signals: dict[Signal, float]
    sampling: Sampling
    tower: Tower
    epochs: int
    learning_rate: float
    max_length: int
    groups_per_step: int
    accumulation_steps: int | None
    num_threads: int


def local_preset(retriever: FaissRetriever) -> Preset:
    """For a small LM on this machine, and a bi-encoder that is also the first stage.

    The query side alone is trained, which encodes no passage. Of the teachers without labels these three signals
    gained most in docs/ablation.md, and within noise as much as the best in docs/results.md. Answer and retrieval score
    gained as much, which is what they come to with ``rationale_lm=None``: try that first.

    Args:
        retriever: The program's first stage, built by the reranker's own encoder.

    Example:
        >>> import radio_dspy as radio
        >>> passages = [radio.Passage("a", "Yeast dies above sixty degrees."), radio.Passage("b", "Ice floats.")]
        >>> preset = local_preset(radio.FaissRetriever.build(passages, encoder="all-MiniLM-L6-v2"))
        >>> optimizer = radio.RADIO(rationale_lm=None, **preset)
        >>> {signal.name: weight for signal, weight in preset["signals"].items()}
        {'rationale': 0.25, 'answer': 0.25, 'retrieval': 0.5}
    """
    encoder = retriever.encoder
    return {
        "encoder": encoder,
        "signals": {
            RationaleSimilarity(encoder, index=retriever): 0.25,
            AnswerSimilarity(encoder, index=retriever): 0.25,
            RetrievalScore(): 0.5,
        },
        "sampling": "shift_all_neg",
        "tower": "query",
        "epochs": 2,
        "learning_rate": 3e-5,
        "max_length": 128,
        "groups_per_step": 32,
        "accumulation_steps": 1,
        "num_threads": 1,
    }


def hosted_preset(encoder: TextEncoder | str = "BAAI/bge-m3") -> Preset:
    """For rationales by a hosted LM, and bge-reranker-base or another cross-encoder: the paper's training.

    It rests on the paper's own tables (20,000 questions, gpt-4o-mini), which we have not repeated: Wikipedia's index
    needs a larger machine, for which ``examples/experiments/paper`` is ready. Guards and gate stay on; the paper has
    neither (``guards=False, gate=False``).

    Args:
        encoder: Compares passages with rationales; the paper's BGE-M3.

    Example:
        >>> preset = hosted_preset("all-MiniLM-L6-v2")
        >>> preset["learning_rate"], preset["epochs"], preset["sampling"]
        (6e-05, 2, 'shift')
    """
    return {
        "encoder": as_encoder(encoder),
        "sampling": "shift",
        "tower": "both",
        "epochs": PAPER_EPOCHS,
        "learning_rate": PAPER_LEARNING_RATE,
        "max_length": PAPER_MAX_LENGTH,
        "groups_per_step": PAPER_GROUPS_PER_STEP,
        "accumulation_steps": None,
        "num_threads": 16,
    }
