"""Late interaction (ColBERT): query and passage encoded apart into one vector a token."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import CheckpointError, DataError
from radio_dspy.models.architecture import check_architecture
from radio_dspy.models.bi_encoder import (
    COSINE_TEMPERATURE,
    DOCUMENT,
    QUERY,
    BiEncoderScorer,
    PassageVectors,
    _distinct,
    rows_of,
)
from radio_dspy.models.encoder import MODEL_LOCK, quiet_loading
from radio_dspy.models.files import fetched_weights, safe_loading
from radio_dspy.models.randomness import RandomState
from radio_dspy.models.scorer import Pairs, _batch_size, _chunked, _on_device
from radio_dspy.models.weights import RerankerWeights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Scores = npt.NDArray[np.float32]

_HEAD_SEED = 0


def open_multi_vector_encoder(name: str, device: str | None, max_length: int | None) -> Any:
    """Load a ``MultiVectorEncoder`` of one's own, as ``open_sentence_transformer`` loads its kind; PyLate's, too.

    An encoder's tokens get a projection that is drawn, the same one in every process.

    Raises:
        UnsafeFileError: If a file asks for code, an address, a path or another repository, or is a pickle.
        CheckpointError: If the weights cannot be found or read, lack tensors, or are of another kind.
    """
    from sentence_transformers import MultiVectorEncoder

    from radio_dspy.models.checks import own_errors, prepare_model, try_model
    from radio_dspy.models.packing import enable_packing
    from radio_dspy.models.tensors import check_tensors, loading

    folder = fetched_weights(name)
    check_architecture(folder, "late-interaction", new_head=True)
    with RandomState(_HEAD_SEED).drawing(), quiet_loading(), loading(name, "late-interaction model") as reports:
        model = MultiVectorEncoder(str(folder), device=device, **safe_loading())
    with own_errors(name):
        check_tensors(name, model, reports)
        prepare_model(model, name, max_length)
        enable_packing(model.eval())
        for encode in (model.encode_query, model.encode_document):
            try_model(functools.partial(rows_of, encode))
    return model


class LateInteractionScorer(BiEncoderScorer):
    """Encodes query and passage apart; the score is sentence-transformers' MaxSim.

    For each token of the query the cosine of the closest token of the passage, added up (``"maxsim"``) or averaged
    (``"meanmaxsim"``), as the checkpoint says. The logit is the score; an average is divided by ``COSINE_TEMPERATURE``.
    """

    open_model = staticmethod(open_multi_vector_encoder)

    def __init__(self, weights: RerankerWeights, *settings: Any, **named: Any) -> None:
        if not Path(weights.checkpoint).is_dir():  # else it was looked at when the weights were named
            check_architecture(fetched_weights(weights.checkpoint), "late-interaction", new_head=weights.new_head)
        super().__init__(weights, *settings, **named)

    def score(self, pairs: Pairs) -> Scores:
        """See ``Scorer``; each distinct text is encoded once."""
        queries, query_rows = _distinct([query for query, _ in pairs])
        passages, passage_rows = _distinct([passage for _, passage in pairs])
        found = self._encode(self.module, queries, QUERY), self.encode_passages(passages)
        return self._compare(*found, query_rows, passage_rows).cpu().numpy()

    def logits(self, pairs: Pairs) -> torch.Tensor:
        """See ``Scorer``; each distinct text is encoded once."""
        queries, query_rows = _distinct([query for query, _ in pairs])
        passages, passage_rows = _distinct([passage for _, passage in pairs])
        query_tokens = self._tokens(queries, QUERY)
        if isinstance(self._frozen, PassageTokens):
            passage_tokens = [one.to(query_tokens[0].device) for one in self._frozen.tokens(passages)]
        else:
            passage_tokens = self._tokens(passages, DOCUMENT)
        scores = self._compare(query_tokens, passage_tokens, query_rows, passage_rows)
        return scores / COSINE_TEMPERATURE if self.module.similarity_fn_name == "meanmaxsim" else scores

    def _compare(self, queries: list[Any], passages: list[Any], query_rows: list[int], rows: list[int]) -> torch.Tensor:
        if queries[0].shape[1] != passages[0].shape[1]:
            raise CheckpointError(
                f"{self._passage_side[0]}: its vectors have {passages[0].shape[1]} dimensions, those of queries "
                f"{queries[0].shape[1]}; give a query and a passage side that belong together."
            )
        return self.module.similarity_pairwise([queries[row] for row in query_rows], [passages[row] for row in rows])

    def _tokens(self, texts: list[str], task: str) -> list[torch.Tensor]:
        """The vectors of each text's tokens, with gradients, float32 of shape (tokens, dimension)."""

        def forward(chunk: list[str]) -> list[torch.Tensor]:
            features = self.module.preprocess(chunk, prompt=self.prompts[task], task=task)
            found = self.module(_on_device(features, self.module), task=task)
            kept = found["attention_mask"].bool()
            return [one[mask].float() for one, mask in zip(found["token_embeddings"], kept, strict=True)]

        return _chunked(self.module, texts, len, forward)

    def encode_passages(self, texts: list[str]) -> list[torch.Tensor]:
        """The vectors of each passage's tokens, float32 of shape (tokens, dimension)."""
        return self._encode(self._passage_module, texts, DOCUMENT)

    def _encode(self, module: Any, texts: list[str], task: str) -> list[torch.Tensor]:
        return module.encode(
            texts,
            prompt=self.prompts[task],
            task=task,
            batch_size=_batch_size(module, max(map(len, texts), default=0), self._precision),
            show_progress_bar=False,
        )


class PassageTokens(PassageVectors):
    """Vectors of the tokens of passages by their text: computed once, while the query side is trained.

    Args:
        texts: Every passage that training will ask for.
        vectors: For each of them float32 of shape (tokens, dimension).
    """

    def __init__(self, texts: Sequence[str], vectors: Sequence[torch.Tensor]) -> None:
        self._by_text = {text: one.detach().clone() for text, one in zip(texts, vectors, strict=True)}

    @classmethod
    def encode(cls, weights: RerankerWeights, texts: Sequence[str], device: str | None = None) -> PassageTokens:
        """Encode texts with the passage side of these weights."""
        distinct = list(dict.fromkeys(texts))
        with MODEL_LOCK:
            return cls(distinct, LateInteractionScorer(weights, device).encode_passages(distinct))

    def tokens(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """The vectors of texts.

        Raises:
            DataError: For a text that was not given.
        """
        unknown = next((text for text in texts if text not in self._by_text), None)
        if unknown is not None:
            raise DataError(f"No vectors were computed for the passage {unknown!r:.80}; give PassageTokens every text.")
        return [self._by_text[text] for text in texts]
