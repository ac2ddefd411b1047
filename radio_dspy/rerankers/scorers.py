"""The models behind rerankers: one seam over cross-encoders and bi-encoders, for scoring and for training."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from radio_dspy.encoders import (
    MODEL_LOCK,
    forget_models,
    load_sentence_transformer,
    open_sentence_transformer,
    quiet_loading,
)
from radio_dspy.errors import CheckpointError, DataError
from radio_dspy.passages import checked_text
from radio_dspy.rerankers.weights import Architecture, RerankerWeights, ScoringPrecision

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Scores = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Pairs = Sequence[tuple[str, str]]
# Cosines lie in [-1, 1]; divided by this they spread enough for a softmax over passages.
COSINE_TEMPERATURE = 0.05
QUERY, DOCUMENT = "query", "document"  # sentence-transformers' tasks: a model may have a route for each
_SCORING_BATCH = 32
# In fewer bits a pass takes so little time that what surrounds it counts: fewer and larger ones, as far as memory goes.
_LOWERED_BATCH, _LOWERED_CHARACTERS = 256, 32_768
_TRAINING_CHUNK = 16
_HEAD_SEED = 0
_HEADLESS = ("Model", "ForMaskedLM")  # ends of the architectures of plain encoders
_RECENT_PASSAGES = 20_000  # vectors kept for each passage side: 31 MB at 384 dimensions


class Scorer(Protocol):
    """Scores (query, passage) pairs; higher is better."""

    def score(self, pairs: Pairs) -> Scores:
        """Scores for inference, float32 of shape (number of pairs,)."""

    def logits(self, pairs: Pairs) -> torch.Tensor:
        """Scores that gradients flow through, float32 of shape (number of pairs,)."""

    @property
    def module(self) -> torch.nn.Module:
        """The torch module that is trained."""

    def save(self, folder: Path) -> None:
        """Write a checkpoint that loads again (safetensors, tokenizer, settings)."""


class CrossEncoderScorer:
    """Reads query and passage together; the score is the raw logit."""

    def __init__(
        self, weights: RerankerWeights, device: str | None = None, precision: ScoringPrecision = "fp32"
    ) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        from radio_dspy.packing import enable_packing
        from radio_dspy.precision import lower_precision

        # Weights without a scoring head get a fresh one: seeded, so that the base is the same in every process.
        with torch.random.fork_rng(), quiet_loading():
            torch.manual_seed(_HEAD_SEED)
            try:
                self.module = CrossEncoder(
                    weights.checkpoint,
                    num_labels=1,
                    max_length=weights.max_length,
                    activation_fn=torch.nn.Identity(),
                    device=device,
                    model_kwargs={"use_safetensors": True},
                )
            except Exception as error:  # what a damaged folder raises in three libraries has no class in common
                raise CheckpointError(
                    f"{weights.checkpoint}: cannot be loaded as a cross-encoder ({error}). Give a folder that holds "
                    "one, or a hub name while the hub can be reached."
                ) from error
        if any(name.endswith(_HEADLESS) for name in getattr(self.module.config, "architectures", None) or ()):
            _warn_of_a_new_head(weights.checkpoint)
        enable_packing(self.module)
        lower_precision(self.module.eval(), precision)
        self._precision = precision

    def score(self, pairs: Pairs) -> Scores:
        """See ``Scorer``."""
        longest = max((len(query) + len(passage) for query, passage in pairs), default=0)
        size = _batch_size(self.module, longest, self._precision)
        return self.module.predict(list(pairs), batch_size=size, show_progress_bar=False)

    def logits(self, pairs: Pairs) -> torch.Tensor:
        """See ``Scorer``."""

        def forward(chunk: list[tuple[str, str]]) -> torch.Tensor:
            features = self.module.preprocess([list(pair) for pair in chunk])
            return self.module(_on_device(features, self.module))["scores"].view(-1).float()

        return _in_batches(self.module, list(pairs), lambda pair: len(pair[0]) + len(pair[1]), forward)

    def save(self, folder: Path) -> None:
        """See ``Scorer``."""
        with quiet_loading():
            self.module.save_pretrained(str(folder), create_model_card=False)


@functools.cache
def _warn_of_a_new_head(checkpoint: str) -> None:
    """Once for each: transformers' own warning is about every loading."""
    logger.warning(
        "%s holds an encoder and no head that scores pairs. A new one was drawn, which ranks by chance before it is "
        "trained: give weights that were trained to rerank, or architecture='bi-encoder'.",
        checkpoint,
    )


class BiEncoderScorer:
    """Encodes query and passage apart; the score is their cosine, the logit the cosine over ``COSINE_TEMPERATURE``.

    Args:
        weights: Which checkpoints.
        device: Where to run; None chooses.
        private: Take a model of its own, which may be trained.
        frozen: Vectors of the passages that will be asked for, by text: only the query side is trained.
        precision: Of the layers; one below fp32 can only score.
    """

    def __init__(
        self,
        weights: RerankerWeights,
        device: str | None = None,
        *,
        private: bool = False,
        frozen: PassageVectors | None = None,
        precision: ScoringPrecision = "fp32",
    ) -> None:
        load = open_sentence_transformer if private else functools.partial(_shared_module, precision)
        self.module = load(weights.checkpoint, device, weights.max_length)
        self._passage_module = self.module
        if weights.passage_side != weights.checkpoint and frozen is None:
            self._passage_module = _shared_module(precision, weights.passage_side, device, weights.max_length)
        self._frozen = frozen
        self._private = private
        self._precision = precision
        self._passage_side = (weights.passage_side, device, weights.max_length, precision)
        prompts = self.module.prompts
        declared = prompts.get("document") or prompts.get("passage") or ""
        self._query_prompt = prompts.get("query") or "" if weights.query_prefix is None else weights.query_prefix
        self._passage_prompt = declared if weights.passage_prefix is None else weights.passage_prefix

    @property
    def prompts(self) -> dict[str, str]:
        """What is put before queries and documents, in sentence-transformers' words."""
        return {QUERY: self._query_prompt, DOCUMENT: self._passage_prompt}

    def score(self, pairs: Pairs) -> Scores:
        """See ``Scorer``; each distinct text is encoded once."""
        import numpy as np

        if not pairs:
            return np.zeros(0, dtype=np.float32)
        queries, query_rows = _distinct([query for query, _ in pairs])
        passages, passage_rows = _distinct([passage for _, passage in pairs])
        query_vectors = self._encode(self.module, queries, QUERY)
        passage_vectors = self.encode_passages(passages)
        return np.einsum("ij,ij->i", query_vectors[query_rows], passage_vectors[passage_rows]).astype(np.float32)

    def encode_passages(self, texts: list[str]) -> Scores:
        """Unit vectors of passages; those that were encoded lately, by whatever query side, are not encoded again."""
        import numpy as np

        if self._private:  # its weights are about to change
            return self._encode(self._passage_module, texts, DOCUMENT)
        known = _recent_vectors(self._passage_side, self._passage_prompt)
        if len(known) > _RECENT_PASSAGES:
            known.clear()
        missing = [text for text in texts if text not in known]
        if missing:
            vectors = self._encode(self._passage_module, missing, DOCUMENT)
            known.update(zip(missing, vectors, strict=True))
        return np.stack([known[text] for text in texts])

    def _encode(self, module: Any, texts: list[str], task: str) -> Scores:
        return module.encode(
            texts,
            prompt=self.prompts[task],
            task=task,
            normalize_embeddings=True,
            batch_size=_batch_size(module, max(map(len, texts), default=0), self._precision),
            show_progress_bar=False,
        )

    def logits(self, pairs: Pairs) -> torch.Tensor:
        """See ``Scorer``; each distinct text is encoded once."""
        queries, query_rows = _distinct([query for query, _ in pairs])
        query_vectors = _rows(self._embed(queries, self._query_prompt, QUERY), query_rows)
        if self._frozen is not None:
            passage_vectors = self._frozen.tensor([passage for _, passage in pairs]).to(query_vectors.device)
        else:
            passages, passage_rows = _distinct([passage for _, passage in pairs])
            passage_vectors = _rows(self._embed(passages, self._passage_prompt, DOCUMENT), passage_rows)
        return (query_vectors * passage_vectors).sum(-1) / COSINE_TEMPERATURE

    def _embed(self, texts: list[str], prompt: str, task: str) -> torch.Tensor:
        import torch

        def forward(chunk: list[str]) -> torch.Tensor:
            features = _on_device(self.module.preprocess(chunk, prompt=prompt, task=task), self.module)
            return torch.nn.functional.normalize(self.module(features)["sentence_embedding"].float(), dim=-1)

        return _in_batches(self.module, texts, len, forward)

    def save(self, folder: Path) -> None:
        """See ``Scorer``."""
        self.module.prompts = {**self.module.prompts, **self.prompts}
        with quiet_loading():
            self.module.save_pretrained(str(folder), create_model_card=False)


class PassageVectors:
    """Vectors of passages by their text: computed once, while a bi-encoder's query side is trained.

    Args:
        texts: Every passage that training will ask for.
        vectors: Unit vectors, float32 of shape (texts, dimension).
    """

    def __init__(self, texts: Sequence[str], vectors: Scores) -> None:
        import torch

        self._rows = {text: row for row, text in enumerate(texts)}
        self._vectors = torch.from_numpy(vectors)

    @classmethod
    def encode(cls, weights: RerankerWeights, texts: Sequence[str], device: str | None = None) -> PassageVectors:
        """Encode texts with the passage side of a bi-encoder."""
        with MODEL_LOCK:
            scorer = BiEncoderScorer(weights, device)
            distinct = list(dict.fromkeys(texts))
            return cls(distinct, scorer.encode_passages(distinct))

    def tensor(self, texts: Sequence[str]) -> torch.Tensor:
        """The vectors of texts, float32 of shape (texts, dimension).

        Raises:
            DataError: For a text that was not given.
        """
        unknown = next((text for text in texts if text not in self._rows), None)
        if unknown is not None:
            raise DataError(f"No vector was computed for the passage {unknown!r:.80}; give PassageVectors every text.")
        return self._vectors[[self._rows[text] for text in texts]]


def open_scorer(weights: RerankerWeights, device: str | None = None, *, frozen: PassageVectors | None = None) -> Scorer:
    """A fresh scorer of its own, for training: the shared one must never change."""
    if weights.architecture == "cross-encoder":
        return CrossEncoderScorer(weights, device)
    return BiEncoderScorer(weights, device, private=True, frozen=frozen)


def forget_scorers() -> None:
    """Let go of every loaded model and of what was computed with it: a folder holds other weights than it did."""
    _shared_scorer.cache_clear()
    _lowered_module.cache_clear()
    _recent_vectors.cache_clear()
    forget_models()


@functools.lru_cache(maxsize=3)
def _recent_vectors(side: tuple[str, str | None, int | None, ScoringPrecision], prompt: str) -> dict[str, Scores]:
    """The passage vectors kept for one passage side; its checkpoint is immutable, so they stay true."""
    return {}


def _shared_module(precision: ScoringPrecision, name: str, device: str | None, max_length: int | None) -> Any:
    """The process's copy of an encoder; that in fp32 is shared with everything else that encodes."""
    if precision == "fp32":
        return load_sentence_transformer(name, device, max_length)
    return _lowered_module(precision, name, device, max_length)


@functools.lru_cache(maxsize=2)
def _lowered_module(precision: ScoringPrecision, name: str, device: str | None, max_length: int | None) -> Any:
    from radio_dspy.precision import lower_precision

    module = open_sentence_transformer(name, device, max_length)
    lower_precision(module, precision)
    return module


def _batch_size(module: Any, longest: int, precision: ScoringPrecision) -> int:
    """Texts in a forward pass, the longest of which has so many characters."""
    if precision == "fp32" or not module._can_flatten_inputs():
        return _SCORING_BATCH
    return min(max(_SCORING_BATCH, _LOWERED_CHARACTERS // max(longest, 1)), _LOWERED_BATCH)


def score_lists(
    weights: RerankerWeights,
    lists: Sequence[tuple[str, Sequence[str]]],
    device: str | None = None,
    precision: ScoringPrecision = "fp32",
) -> list[Scores]:
    """Score the passages of many queries in one batch.

    Args:
        weights: Which checkpoint, and how it scores.
        lists: (query, passage texts) for each question.
        device: Where to run; None chooses.
        precision: Of the layers.

    Returns:
        For each question, float32 scores of shape (number of passages,).
    """
    import numpy as np

    pairs = [
        (checked_text(query, "The query"), checked_text(text, f"Passage {position} of {query!r:.80}"))
        for query, texts in lists
        for position, text in enumerate(texts)
    ]
    with MODEL_LOCK:
        scorer = _shared_scorer(
            weights.checkpoint,
            weights.passage_checkpoint,
            weights.architecture,
            weights.max_length,
            weights.query_prefix,
            weights.passage_prefix,
            device,
            precision,
        )
        scores = scorer.score(pairs) if pairs else np.zeros(0, dtype=np.float32)
    if not np.isfinite(scores).all():
        raise CheckpointError(
            f"{weights.checkpoint}: scored {np.asarray(scores)[~np.isfinite(scores)][0]}; its weights are damaged."
        )
    ends = np.cumsum([len(texts) for _, texts in lists])
    return np.split(np.asarray(scores, dtype=np.float32), ends[:-1])


@functools.lru_cache(maxsize=3)
def _shared_scorer(
    checkpoint: str,
    passage_checkpoint: str | None,
    architecture: Architecture,
    max_length: int | None,
    query_prefix: str | None,
    passage_prefix: str | None,
    device: str | None,
    precision: ScoringPrecision,
) -> Scorer:
    weights = RerankerWeights(checkpoint, architecture, max_length=max_length)
    weights.passage_checkpoint = passage_checkpoint
    weights.query_prefix, weights.passage_prefix = query_prefix, passage_prefix
    if architecture == "cross-encoder":
        return CrossEncoderScorer(weights, device, precision)
    return BiEncoderScorer(weights, device, precision=precision)


def _in_batches(
    module: Any, items: list[T], length: Callable[[T], int], forward: Callable[[list[T]], torch.Tensor]
) -> torch.Tensor:
    """Run all items at once where they are packed; else chunks of similar length, so that little padding is computed.

    The rows come back in the items' order.
    """
    import torch

    if module._can_flatten_inputs():
        return forward(items)
    order = sorted(range(len(items)), key=lambda place: length(items[place]))
    chunks = [order[start : start + _TRAINING_CHUNK] for start in range(0, len(order), _TRAINING_CHUNK)]
    rows = torch.cat([forward([items[i] for i in chunk]) for chunk in chunks])
    places = sorted(range(len(order)), key=order.__getitem__)
    return _rows(rows, places)


def _rows(matrix: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Pick rows. Unlike ``matrix[rows]`` the gradient adds up in a fixed order, so that training repeats to the bit."""
    import torch

    return matrix.index_select(0, torch.tensor(rows, device=matrix.device))


def _distinct(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Each distinct text once, and for every text the row where it stands."""
    rows: dict[str, int] = {}
    found = [rows.setdefault(text, len(rows)) for text in texts]
    return list(rows), found


def _on_device(features: dict[str, Any], module: Any) -> dict[str, Any]:
    from sentence_transformers.util import batch_to_device

    return batch_to_device(features, module.device)
