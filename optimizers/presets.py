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


class Preset(TypedDict):
    """Keyword arguments of ``RADIO``; a dict of one's own beside it changes some: ``{**preset, "epochs": 1}``."""

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

    The query side alone is trained, which encodes no passage. A 135M LM's rationale pays only together with the answer,
    hence three signals: best of those without labels in docs/results.md ("What is each signal worth?") and in
    docs/ablation.md.

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
    """For rationales by a hosted LM, and bge-reranker-base or another cross-encoder: the paper's own setting.

    It rests on the paper's tables 1 to 3 (20,000 questions, gpt-4o-mini), which were not repeated here: no machine of
    ours holds Wikipedia's index. ``examples/experiments/paper`` repeats them on one that does.

    Args:
        encoder: Compares passages with rationales; the paper's BGE-M3.

    Example:
        >>> preset = hosted_preset("all-MiniLM-L6-v2")
        >>> preset["learning_rate"], preset["epochs"], {one.name: w for one, w in preset["signals"].items()}
        (6e-05, 2, {'rationale': 0.5, 'retrieval': 0.5})
    """
    encoder = as_encoder(encoder)
    return {
        "encoder": encoder,
        "signals": {RationaleSimilarity(encoder): 0.5, RetrievalScore(): 0.5},
        "sampling": "shift",
        "tower": "both",
        "epochs": PAPER_EPOCHS,
        "learning_rate": PAPER_LEARNING_RATE,
        "max_length": PAPER_MAX_LENGTH,
        "groups_per_step": PAPER_GROUPS_PER_STEP,
        "accumulation_steps": None,
        "num_threads": 16,
    }
