"""Text encoders: what turns texts into vectors, on this machine or at a provider."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.locks import ThreadLock
from radio_dspy.core.passages import Passage
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.validation import checked_text, is_whole
from radio_dspy.models.architecture import check_architecture
from radio_dspy.models.backends import check_backend, run_by
from radio_dspy.models.computing import Backend
from radio_dspy.models.files import (
    fetched_weights,
    fingerprint,
    safe_loading,
    weights,
    weights_name,
)
from radio_dspy.models.settings_values import MODULES
from radio_dspy.models.shared import shared
from radio_dspy.models.vectors import checked_vectors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from sentence_transformers import SentenceTransformer

    Vectors = npt.NDArray[np.float32]

T = TypeVar("T")
logger = logger_of(__name__)
# Texts that are encoded together. Which ones a model reads in one batch decides the last bits of their vectors: a block
# is always encoded alone, so that it comes out the same wherever it is encoded, and whatever else is.
BLOCK = 512
# One model is used by one thread at a time: torch already uses every core.
MODEL_LOCK = ThreadLock()


def _one_thread() -> None:
    """Called in a forked child: OpenMP's threads are not there, and torch and FAISS would wait for them without end."""
    for library, setting in (("torch", "set_num_threads"), ("faiss", "omp_set_num_threads")):
        if (module := sys.modules.get(library)) is not None:
            getattr(module, setting)(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)


def check_queries(queries: Any) -> None:
    """See that queries come as a list: one string would be read letter by letter.

    Raises:
        DataError: If they do not.
    """
    if isinstance(queries, str) or not isinstance(queries, Sequence):
        raise DataError(f"Queries must be a list of strings, got {type(queries).__name__}; give [query] for one.")


def enumerate_blocks(items: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """The blocks of texts or passages, each with the position of its first."""
    for start in range(0, len(items), BLOCK):
        yield start, items[start : start + BLOCK]


class TextEncoder(ABC):
    """Turns texts into unit vectors; similarity is their dot product. All that an index, a signal or a split needs.

    ``Encoder`` runs local weights, which ``Rerank`` can start from and ``RADIO`` can train. ``RemoteEncoder`` asks a
    hosted model. For another source of vectors write a subclass: the four attributes, ``identity``, ``window``,
    ``count_tokens`` and ``_encode``.

    Attributes:
        name: A folder, a hub name or a LiteLLM name.
        query_prefix: Put before every query; None puts nothing, or what the model itself declares.
        passage_prefix: Put before every passage; None as above.
        max_length: Longest input in tokens, where it was set.
    """

    name: str
    query_prefix: str | None
    passage_prefix: str | None
    max_length: int | None

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that decides the passage vectors, as JSON types: an index serves only the identity that built it.

        It has ``model``, ``passage_prefix`` and ``max_length``; no path, address or key.
        """

    @property
    def query_settings(self) -> dict[str, Any]:
        """Everything that decides how queries are encoded, as JSON types: it may change without a new index."""
        return {"query_prefix": self.query_prefix}

    @property
    @abstractmethod
    def window(self) -> int | None:
        """How many tokens of a text are read; None has no limit, or an unknown one."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens, to hold against ``window``."""

    def encode_queries(self, texts: Sequence[str], *, show_progress: bool = False) -> Vectors:
        """Encode queries into a float32 array of shape (n, dimension) with rows of length 1."""
        check_queries(texts)
        texts = [checked_text(text, f"Query {position}") for position, text in enumerate(texts)]
        return checked_vectors(self._encoded(texts, query=True, show_progress=show_progress), len(texts), self.name)

    def encode_passages(self, passages: Sequence[Passage | str], *, show_progress: bool = False) -> Vectors:
        """Encode passages (title and text) into a float32 array of shape (n, dimension) with rows of length 1."""
        texts = [
            checked_text(one.contents, f"Passage {one.id!r}")
            if isinstance(one, Passage)
            else checked_text(one, f"Passage {position}")
            for position, one in enumerate(passages)
        ]
        return checked_vectors(self._encoded(texts, query=False, show_progress=show_progress), len(texts), self.name)

    def passage_blocks(self, passages: Sequence[Passage]) -> Iterator[tuple[int, Vectors]]:
        """Encode passages without holding them all: yields where each block begins, with its vectors.

        On a cluster the blocks come in another order.
        """
        texts = ((start, [one.contents for one in block]) for start, block in enumerate_blocks(passages))
        for start, found in self._blocks(texts, query=False):
            yield start, checked_vectors(found, min(BLOCK, len(passages) - start), self.name)

    def _encoded(self, texts: list[str], *, query: bool, show_progress: bool) -> Vectors:
        """The vectors of all texts, one block after the other."""
        if len(texts) <= BLOCK:
            return self._encode(texts, query=query, show_progress=show_progress)
        import numpy as np
        from tqdm.auto import tqdm

        vectors: Vectors | None = None
        with tqdm(total=len(texts), desc="encoding", unit="text", disable=not show_progress) as bar:
            for start, found in self._blocks(enumerate_blocks(texts), query=query):
                if vectors is None:
                    vectors = np.empty((len(texts), found.shape[1]), dtype=np.float32)
                vectors[start : start + len(found)] = found
                bar.update(len(found))
        return vectors  # type: ignore[return-value]  # there is more than one block

    def _blocks(self, blocks: Iterable[tuple[int, Sequence[str]]], *, query: bool) -> Iterator[tuple[int, Vectors]]:
        """The vectors of each block and where it begins; one is taken when there is something to encode it."""
        for start, block in blocks:
            yield start, self._encode(list(block), query=query, show_progress=False)

    @abstractmethod
    def _encode(self, texts: list[str], *, query: bool, show_progress: bool) -> Vectors:
        """Unit vectors in the texts' order, C-contiguous."""


class Encoder(TextEncoder):
    """Turns texts into unit vectors with a sentence-transformers model on this machine.

    The object holds strings only, so copies are free; the model is loaded at first use and shared in the process.

    Args:
        name: A folder or hub name; see ``weights``. Never a LiteLLM name, whatever it begins with.
        query_prefix: Put before every query, for example E5's ``"query: "``; None takes what the model itself declares.
        passage_prefix: Put before every passage, for example E5's ``"passage: "``; None as above.
        batch_size: Texts in one forward pass; texts are sorted by length first.
        max_length: Longest input in tokens; None keeps the model's own.
        device: ``"cpu"``, ``"cuda"``...; None chooses.
        backend: What runs the model: ``"torch"``, ``"onnx"`` (onnxruntime) or ``"openvino"``, the last two on the CPU.

    Example:
        >>> encoder = Encoder("all-MiniLM-L6-v2")
        >>> encoder.encode_queries(["why is the jug cold?"]).shape
        (1, 384)
    """

    def __init__(
        self,
        name: str,
        *,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        device: str | None = None,
        backend: Backend = "torch",
    ) -> None:
        check_backend(backend)
        if not all(is_whole(one) and one >= 1 for one in (batch_size, 1 if max_length is None else max_length)):
            raise SettingsError(
                f"batch_size and max_length must be at least 1 and whole, got {batch_size!r} and {max_length!r}."
            )
        self.name = weights(name)
        self.query_prefix = query_prefix
        self.passage_prefix = passage_prefix
        self.batch_size = batch_size
        self.max_length = max_length
        self.device = device
        self.backend: Backend = backend

    @property
    def identity(self) -> dict[str, Any]:
        """See ``TextEncoder``; the fingerprint is that of the weights."""
        if not Path(self.name).is_dir():  # a hub name: the files decide, so they are fetched
            self._model()
        return {
            "model": weights_name(self.name),
            "fingerprint": fingerprint(self.name),
            "passage_prefix": self.passage_prefix,
            "max_length": self.max_length,
        }

    @property
    def window(self) -> int | None:
        """How many tokens of a text are read; None has no limit."""
        from radio_dspy.models.checks import window_of

        return window_of(self._model())

    def count_tokens(self, text: str) -> int:
        """Length of a text in the model's tokens, special ones among them."""
        from radio_dspy.models.checks import token_count

        with MODEL_LOCK:  # a tokenizer holds its settings for truncation while it works
            return token_count(self._model(), text)

    def _model(self) -> SentenceTransformer:
        return load_sentence_transformer(self.name, self.device, self.max_length, self.backend)

    def _encode(self, texts: list[str], *, query: bool, show_progress: bool) -> Vectors:
        import numpy as np

        from radio_dspy.models.checks import own_errors

        with MODEL_LOCK:
            model = self._model()
            if not texts:
                return np.zeros((0, model.get_embedding_dimension() or 0), dtype=np.float32)
            encode = model.encode_query if query else model.encode_document
            declared = declared_prompts(model)
            prefix = self.query_prefix if query else self.passage_prefix
            with own_errors(self.name, loading=False):
                vectors = encode(
                    texts,
                    prompt=declared["query" if query else "document"] if prefix is None else prefix,
                    batch_size=self.batch_size,
                    normalize_embeddings=True,
                    show_progress_bar=show_progress,
                )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def declared_prompts(model: SentenceTransformer) -> dict[str, str]:
    """A model's own prompts for queries and documents, under sentence-transformers' names for the two."""
    found = {name: text for name, text in model.prompts.items() if text}
    document = next((found[name] for name in ("document", "passage", "corpus") if name in found), "")
    return {"query": found.get("query", ""), "document": document}


def open_sentence_transformer(name: str, device: str | None, max_length: int | None) -> SentenceTransformer:
    """Load a model of one's own; only safetensors, never code that comes with the weights. It packs its texts.

    Raises:
        UnsafeFileError: If a file asks for code, an address, a path or another repository, or is a pickle.
        CheckpointError: If the weights cannot be found or read, are a cross-encoder's, lack tensors, or hold some that
            belong to layers which config.json does not name, or no finite numbers.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    from radio_dspy.models.checks import own_errors, prepare_model, try_model
    from radio_dspy.models.packing import enable_packing
    from radio_dspy.models.tensors import check_tensors, loading

    folder = fetched_weights(name)
    check_architecture(folder, "bi-encoder")
    if not (folder / MODULES).is_file():
        _log_pooling(str(folder))
    with quiet_loading(), loading(name, "sentence-transformers model") as reports:
        model = SentenceTransformer(str(folder), device=device, **safe_loading())
    if model.similarity_fn_name != "cosine" and not isinstance(list(model)[-1], Normalize):
        _log_similarity(name, model.similarity_fn_name)
    with own_errors(name):
        check_tensors(name, model, reports)
        prepare_model(model, name, max_length)
        enable_packing(model.eval())
        for encode in (model.encode_query, model.encode_document):
            read = functools.partial(encode, show_progress_bar=False)
            try_model(read, zeros=not reports, dimension=model.get_embedding_dimension())
    return model


@functools.cache
def _log_pooling(folder: str) -> None:
    logger.warning(
        "%s: says nothing of pooling (it has no modules.json); its vectors are the mean over a text's tokens, or "
        "the last token of a causal LM. If it was trained in another way, save it with sentence-transformers first.",
        folder,
    )


@functools.cache
def _log_similarity(name: str, measure: str) -> None:
    logger.warning(
        "%s: compares its vectors by %s, and radio-dspy compares them by cosine, which may rank in another order.",
        name,
        measure,
    )


@shared(maxsize=3)
def load_sentence_transformer(
    name: str, device: str | None, max_length: int | None, backend: Backend
) -> SentenceTransformer:
    """The process's shared copy of a model, for inference only; see ``open_sentence_transformer``."""
    # No argument has a default: a call that left it out would load a copy of its own.
    from radio_dspy.models.checks import own_errors

    model = open_sentence_transformer(name, device if backend == "torch" else "cpu", max_length)
    with own_errors(name, backend=backend):
        run_by(model, backend)
    return model


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' progress bars and load reports for the length of the block."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
