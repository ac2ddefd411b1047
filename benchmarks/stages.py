"""The stages that users wait for, each as a piece of work of a wanted size, on made-up texts."""

from __future__ import annotations

import random
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dspy
import numpy as np

import radio_dspy as radio
from radio_dspy.distillation import RationaleSimilarity, RetrievalScore
from radio_dspy.distillation.gate.splitting import question_groups
from radio_dspy.distillation.preferences.building import PreferenceSettings, build_groups
from radio_dspy.distillation.teacher.ranking import fused_rankings
from radio_dspy.models.files import weights
from radio_dspy.retrievers.requests import rank_requests

WORDS = 20_000  # which the texts are drawn from


@dataclass(frozen=True)
class Load:
    """How much work.

    Attributes:
        questions: To search, align or rerank for.
        candidates: For each question.
        passages: In the index.
        group: Passages in a training group, the positive among them.
        words: In a passage.
        updates: Of the reranker's weights.
        update: Training groups in one update.
    """

    questions: int = 100
    candidates: int = 20
    passages: int = 2000
    group: int = 8
    words: int = 40
    updates: int = 2
    update: int = 4


class Instant(radio.Encoder):
    """An encoder whose vectors come at once: a stretch of noise that a hash of the text chooses."""

    _noise = np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)

    def _encode(self, texts: Sequence[str], *, query: bool, show_progress: bool) -> Any:
        found = np.empty((len(texts), 384), dtype=np.float32)
        for row, text in enumerate(texts):
            start = zlib.crc32(text.encode()) % (len(self._noise) - 384)
            found[row] = self._noise[start : start + 384]
        found /= np.sqrt(np.einsum("ij,ij->i", found, found))[:, None]
        return found


@dataclass(frozen=True)
class Texts:
    """Texts of a wanted length, and the models that read them.

    Attributes:
        words: Where the words are drawn from, with their frequencies.
        model: The folder of the small encoder.
    """

    words: tuple[str, ...]
    model: str

    def some(self, count: int, words: int, seed: int = 0) -> list[str]:
        """Different texts of so many words."""
        draw = random.Random(seed)
        return [" ".join(draw.choices(self.words, k=words)) for _ in range(count)]

    def passages(self, load: Load) -> list[radio.Passage]:
        """The corpus."""
        return [radio.Passage(f"p{i}", text) for i, text in enumerate(self.some(load.passages, load.words))]

    def questions(self, load: Load) -> list[dspy.Example]:
        """Questions with an answer."""
        texts = self.some(load.questions, 10, seed=1)
        return [
            dspy.Example(id=f"q{i}", question=f"{text}?", answers=[" ".join(text.split()[:2])]).with_inputs("question")
            for i, text in enumerate(texts)
        ]

    def lists(self, load: Load) -> list[tuple[str, list[str]]]:
        """What a reranker reads."""
        texts = self.some(load.questions * load.candidates, load.words)
        queries = self.some(load.questions, 10, seed=1)
        return [(query, texts[i * load.candidates : (i + 1) * load.candidates]) for i, query in enumerate(queries)]


Work = Callable[[], object]


def building(texts: Texts, load: Load) -> Work:
    """Index passages whose vectors come at once."""
    passages = texts.passages(load)
    return lambda: radio.FaissRetriever.build(passages, Instant(texts.model))


def saving(texts: Texts, load: Load) -> Work:
    """Save an index and load it again."""
    index = radio.FaissRetriever.build(texts.passages(load), Instant(texts.model))

    def work() -> object:
        with tempfile.TemporaryDirectory() as folder:
            index.save(folder)
            return radio.FaissRetriever.load(folder, encoder=index.encoder)

    return work


def searching(texts: Texts, load: Load) -> Work:
    """Search for all questions in one call."""
    index = radio.FaissRetriever.build(texts.passages(load), Instant(texts.model))
    queries = [one.question for one in texts.questions(load)]
    return lambda: index.search(queries, load.candidates)


def preferring(texts: Texts, load: Load) -> Work:
    """From questions with their rationales to training groups: retrieve, score, fuse, sample, guard."""
    encoder = Instant(texts.model)
    index = radio.FaissRetriever.build(texts.passages(load), encoder)
    questions = texts.questions(load)
    rationales = texts.some(load.questions, 60, seed=2)
    signals = {RationaleSimilarity(encoder, index=index): 0.5, RetrievalScore(): 0.5}
    settings = PreferenceSettings(sampling="all", depth=load.group, false_negatives=radio.FalseNegatives())

    def work() -> object:
        asked = rank_requests(questions, index, load.candidates)
        asked = [replace(one, rationale=text) for one, text in zip(asked, rationales, strict=True)]
        groups, _ = build_groups(asked, fused_rankings(asked, signals), settings)
        return [(one.as_dict(), one) for one in groups]

    return work


def encoding(texts: Texts, load: Load) -> Work:
    """Encode passages with the real model."""
    encoder = radio.Encoder(texts.model, max_length=512)
    passages = texts.passages(load)
    encoder.encode_passages(passages[:1])  # loads the model
    return lambda: encoder.encode_passages(passages)


def training(texts: Texts, load: Load) -> Work:
    """Train a cross-encoder on groups, one epoch."""
    from radio_dspy.distillation import PreferenceGroup, train_reranker
    from radio_dspy.models.weights import RerankerWeights

    base = RerankerWeights(texts.model, "cross-encoder", max_length=512, new_head=True)
    lists = texts.lists(replace(load, questions=load.updates * load.update, candidates=load.group))
    groups = [PreferenceGroup(query, found[0], tuple(found[1:])) for query, found in lists]
    settings = radio.TrainingSettings(
        num_train_epochs=1,
        per_device_train_batch_size=load.update,
        gradient_accumulation_steps=1,
        max_length=512,
        disable_tqdm=True,
    )

    def work() -> object:
        with tempfile.TemporaryDirectory() as folder:
            return train_reranker(base, groups, Path(folder) / "out", settings)

    return work


def reranking(texts: Texts, load: Load, architecture: Any = "cross-encoder") -> Work:
    """Score the candidates of all questions."""
    from radio_dspy.models.bi_encoder import _recent_vectors
    from radio_dspy.models.cache import score_lists
    from radio_dspy.models.weights import RerankerWeights

    model = RerankerWeights(texts.model, architecture, max_length=512, new_head=True)
    lists = texts.lists(load)
    score_lists(model, [lists[0]])  # loads the model

    def work() -> object:
        _recent_vectors.cache_clear()  # else the second run has nothing to encode
        return score_lists(model, lists)

    return work


def reranking_apart(texts: Texts, load: Load) -> Work:
    """The same with a bi-encoder."""
    return reranking(texts, load, "bi-encoder")


def splitting(texts: Texts, load: Load) -> Work:
    """Find near-duplicate questions, which must not be divided among training and held-out questions."""
    queries = [one.question for one in texts.questions(load)]
    return lambda: question_groups(queries, Instant(texts.model))


def words_under(data: Path | None) -> tuple[str, ...]:
    """The words of all corpora under a folder, or of the bundled demo set."""
    if data is None:
        return _words_of(radio.datasets.demo().passages)
    corpora = sorted(data.rglob("corpus.jsonl"))
    if not corpora:
        raise SystemExit(f"{data}: holds no corpus.jsonl.")
    return _words_of([one for path in corpora for one in radio.load_corpus(path)])


def _words_of(passages: Sequence[radio.Passage]) -> tuple[str, ...]:
    """Enough words to draw from, each as often as it is written; few, for they go to every process."""
    words = [word for one in passages for word in one.text.split()]
    return tuple(random.Random(0).sample(words, min(len(words), WORDS)))


def small_model(folder: Path) -> str:
    """Write all-MiniLM-L6-v2 with one layer: the same growth in a sixth of the time."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(weights("all-MiniLM-L6-v2"))
    bert: Any = model[0].auto_model
    bert.encoder.layer = bert.encoder.layer[:1]
    bert.config.num_hidden_layers = 1
    model.save_pretrained(str(folder), create_model_card=False)
    return str(folder)
