"""Bi-encoders: query and passage encoded apart."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import CheckpointError, DataError
from radio_dspy.models.backends import run_by
from radio_dspy.models.computing import Backend, ScoringPrecision
from radio_dspy.models.encoder import (
    MODEL_LOCK,
    declared_prompts,
    load_sentence_transformer,
    open_sentence_transformer,
    quiet_loading,
)
from radio_dspy.models.scorer import Pairs, _batch_size, _in_batches, _on_device, _rows
from radio_dspy.models.shared import shared
from radio_dspy.models.vectors import checked_vectors
from radio_dspy.models.weights import RerankerWeights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Scores = npt.NDArray[np.float32]

# Cosines lie in [-1, 1]; divided by this they spread enough for a softmax over passages.
COSINE_TEMPERATURE = 0.05
QUERY, DOCUMENT = "query", "document"  # sentence-transformers' tasks: a model may have a route for each
_RECENT_PASSAGES = 20_000  # vectors kept for each passage side: 31 MB at 384 dimensions


class BiEncoderScorer:
    """Encodes query and passage apart; the score is their cosine, the logit the cosine over ``COSINE_TEMPERATURE``.

    Args:
        weights: Which checkpoints.
        device: Where to run; None chooses.
        private: Take a model of its own, which may be trained.
        frozen: Vectors of the passages that will be asked for, by text: only the query side is trained.
        precision: Of the layers; one below fp32 can only score.
        backend: What runs the model; another than torch can only score.
    """

    open_model: Callable[..., Any] = staticmethod(open_sentence_transformer)

    def __init__(
        self,
        weights: RerankerWeights,
        device: str | None = None,
        *,
        private: bool = False,
        frozen: PassageVectors | None = None,
        precision: ScoringPrecision = "fp32",
        backend: Backend = "torch",
    ) -> None:
        plain = precision == "fp32" and self.open_model is open_sentence_transformer

        def share(*model: Any) -> Any:
            """The process's copy; a plain one is shared with everything else that encodes."""
            if plain:
                return load_sentence_transformer(*model, backend)
            return _scoring_module(self.open_model, precision, backend, *model)

        load = self.open_model if private else share
        self.module = load(weights.checkpoint, device, weights.max_length)
        self._passage_module = self.module
        if weights.passage_side != weights.checkpoint and frozen is None:
            self._passage_module = share(weights.passage_side, device, weights.max_length)
        self._frozen = frozen
        self._private = private
        self._precision = precision
        self._passage_side = (weights.passage_side, device, weights.max_length, precision, backend)
        declared = declared_prompts(self.module)
        self._query_prompt = declared[QUERY] if weights.query_prefix is None else weights.query_prefix
        self._passage_prompt = declared[DOCUMENT] if weights.passage_prefix is None else weights.passage_prefix

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts of queries and documents, under sentence-transformers' names."""
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
        if query_vectors.shape[1] != passage_vectors.shape[1]:
            raise CheckpointError(
                f"{self._passage_side[0]}: its vectors have {passage_vectors.shape[1]} dimensions, those of queries "
                f"{query_vectors.shape[1]}; give a query and a passage side that belong together."
            )
        return np.einsum("ij,ij->i", query_vectors[query_rows], passage_vectors[passage_rows]).astype(np.float32)

    def encode_passages(self, texts: list[str]) -> Any:
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

    def _encode(self, module: Any, texts: list[str], task: str) -> Any:
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
            if passage_vectors.shape[1] != query_vectors.shape[1]:
                raise DataError(
                    f"PassageVectors has {passage_vectors.shape[1]} dimensions, the query side gives "
                    f"{query_vectors.shape[1]}; encode the passages with the same weights."
                )
        else:
            passages, passage_rows = _distinct([passage for _, passage in pairs])
            passage_vectors = _rows(self._embed(passages, self._passage_prompt, DOCUMENT), passage_rows)
        return (query_vectors * passage_vectors).sum(-1) / COSINE_TEMPERATURE

    def _embed(self, texts: list[str], prompt: str, task: str) -> torch.Tensor:
        import torch

        def forward(chunk: list[str]) -> torch.Tensor:
            features = _on_device(self.module.preprocess(chunk, prompt=prompt, task=task), self.module)
            vectors = self.module(features)["sentence_embedding"][..., : self.module.truncate_dim]
            return torch.nn.functional.normalize(vectors.float(), dim=-1)

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

    Raises:
        DataError: If they are not; see ``checked_vectors``.
    """

    def __init__(self, texts: Sequence[str], vectors: Scores) -> None:
        import torch

        self._rows = {text: row for row, text in enumerate(texts)}
        self._vectors = torch.from_numpy(checked_vectors(vectors, len(texts), "PassageVectors"))

    @classmethod
    def encode(cls, weights: RerankerWeights, texts: Sequence[str], device: str | None = None) -> PassageVectors:
        """Encode texts with the passage side of these weights."""
        distinct = list(dict.fromkeys(texts))
        with MODEL_LOCK:
            return cls(distinct, BiEncoderScorer(weights, device).encode_passages(distinct))

    def tensor(self, texts: Sequence[str]) -> torch.Tensor:
        """The vectors of texts, float32 of shape (texts, dimension).

        Raises:
            DataError: For a text that was not given.
        """
        unknown = next((text for text in texts if text not in self._rows), None)
        if unknown is not None:
            raise DataError(f"No vector was computed for the passage {unknown!r:.80}; give PassageVectors every text.")
        return self._vectors[[self._rows[text] for text in texts]]


@shared(maxsize=3)
def _recent_vectors(side: tuple[str | int | None, ...], prompt: str) -> dict[str, Scores]:
    """The passage vectors kept for one passage side; its checkpoint is immutable, so they stay true."""
    return {}


@shared(maxsize=2)
def _scoring_module(
    open_model: Callable[..., Any],
    precision: ScoringPrecision,
    backend: Backend,
    name: str,
    device: str | None,
    max_length: int | None,
) -> Any:
    from radio_dspy.models.checks import own_errors, try_model

    module = open_model(name, device if backend == "torch" else "cpu", max_length)
    with own_errors(name, precision, backend):
        run_by(module, backend, precision)
        for encode in (module.encode_query, module.encode_document):
            try_model(functools.partial(rows_of, encode), zeros=True)
    return module


def rows_of(encode: Callable[..., Any], texts: list[str]) -> Scores:
    """All vectors that a model gives, one of each text or one of each token, as one matrix."""
    import numpy as np
    import torch

    found = encode(texts, show_progress_bar=False)
    return np.vstack([torch.as_tensor(one).float().cpu().numpy() for one in found])


def _distinct(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Each distinct text once, and for every text the row where it stands."""
    rows: dict[str, int] = {}
    found = [rows.setdefault(text, len(rows)) for text in texts]
    return list(rows), found
