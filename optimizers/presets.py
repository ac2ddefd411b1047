"""Presets: settings of ``RADIO`` that go together, with the measurements that they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.training.settings import TrainingSettings

if TYPE_CHECKING:
    from radio_dspy.distillation.teacher.signals import Signal
    from radio_dspy.models.encoder import TextEncoder
    from radio_dspy.retrievers.vector import VectorRetriever


class Preset(TypedDict, total=False):
    """Keyword arguments of ``RADIO``; ``RADIO(**preset | {"epochs": 1})`` changes one."""

    encoder: TextEncoder
    signals: dict[Signal, float]
    preferences: PreferenceSettings
    training: TrainingSettings


# What ``local_preset`` gives; the defaults of the command line and of experiments are these, too.
LOCAL_PREFERENCES = PreferenceSettings(sampling="shift_all_neg")
LOCAL_TRAINING = TrainingSettings(
    tower="query",
    learning_rate=3e-5,
    max_length=128,
    per_device_train_batch_size=32,
    gradient_accumulation_steps=1,
)


def local_preset(retriever: VectorRetriever) -> Preset:
    """For a bi-encoder that is also the first stage, on a CPU, with any LM or none.

    The query side alone is trained, which encodes no passage. Of the teachers without labels these three signals
    gained most in docs/ablation.md, and within noise as much as the best in docs/results.md. Answer and retrieval score
    gained as much, which is what they come to with ``rationale_lm=False``: try that first.

    Args:
        retriever: The program's first stage, built by the reranker's own encoder.

    Example:
        >>> import radio_dspy as radio
        >>> passages = [radio.Passage("a", "Yeast dies above sixty degrees."), radio.Passage("b", "Ice floats.")]
        >>> preset = local_preset(radio.FaissRetriever.build(passages, encoder="all-MiniLM-L6-v2"))
        >>> optimizer = radio.RADIO(rationale_lm=False, **preset)
        >>> {signal.name: weight for signal, weight in preset["signals"].items()}
        {'rationale': 0.25, 'answer': 0.25, 'retrieval': 0.5}
    """
    from radio_dspy.distillation.teacher.signals import AnswerSimilarity, RationaleSimilarity, RetrievalScore

    encoder = retriever.encoder
    return {
        "encoder": encoder,
        "signals": {
            RationaleSimilarity(encoder, index=retriever): 0.25,
            AnswerSimilarity(encoder, index=retriever): 0.25,
            RetrievalScore(): 0.5,
        },
        "preferences": LOCAL_PREFERENCES,
        "training": LOCAL_TRAINING,
    }


def hosted_preset(encoder: TextEncoder | str = "BAAI/bge-m3") -> Preset:
    """For rationales by a hosted LM, and bge-reranker-base or another cross-encoder: the paper's training.

    It rests on the paper's own tables (20,000 questions, gpt-4o-mini), which we have not repeated: Wikipedia's index
    needs a larger machine, for which ``examples/experiments/paper`` is ready. Guards and gate stay on; the paper has
    neither (docs/gate.md).

    Args:
        encoder: Compares passages with rationales; the paper's BGE-M3.

    Example:
        >>> preset = hosted_preset("all-MiniLM-L6-v2")
        >>> preset["training"].learning_rate, preset["preferences"].for_loss(contrastive=True).sampling
        (6e-05, 'shift')
    """
    from radio_dspy.models.open_encoder import as_encoder

    return {
        "encoder": as_encoder(encoder),
        "preferences": PreferenceSettings(),
        "training": TrainingSettings(),
    }
