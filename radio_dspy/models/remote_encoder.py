"""Text encoders that are hosted: any LiteLLM embedding model by its name."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from radio_dspy.core.copies import SharedByCopies
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.terminal import printable
from radio_dspy.core.validation import is_whole
from radio_dspy.lm.parallel import each_in_threads
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.models.endpoint import Endpoint, Recent
from radio_dspy.models.vector_cache import VectorFile
from radio_dspy.models.vectors import checked_vectors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

_RECENT_VECTORS = 10_000  # 61 MB at 1536 dimensions
# What a provider's model must be told to encode a query and a passage each in its way.
_ROLES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "cohere": ({"input_type": "search_query"}, {"input_type": "search_document"}),
    "gemini": ({"task_type": "RETRIEVAL_QUERY"}, {"task_type": "RETRIEVAL_DOCUMENT"}),
    "jina_ai": ({"task": "retrieval.query"}, {"task": "retrieval.passage"}),
    "nvidia_nim": ({"input_type": "query"}, {"input_type": "passage"}),
    "vertex_ai": ({"task_type": "RETRIEVAL_QUERY"}, {"task_type": "RETRIEVAL_DOCUMENT"}),
    "voyage": ({"input_type": "query"}, {"input_type": "document"}),
}
# An index writes them down, so no other names are taken: what LiteLLM takes beside them may be a secret.
_OPTIONS = ("input_type", "prompt_name", "task", "task_type", "truncate")
_BYTES_PER_TOKEN = 4  # of English text; other scripts take more bytes a character, and more tokens


class RemoteEncoder(SharedByCopies, TextEncoder):
    """Turns texts into unit vectors with an embedding model that LiteLLM reaches: hosted, or on a server of yours.

    Each distinct text is sent once and its vector kept: the latest 10,000 in memory, or all of them in a file. A vector
    is found again by model name, ``dimensions``, prefix, options and text. The address is not among these: two servers
    with different weights under one name need two files.

    An index holds the name and settings, never address or key. Copies are the same object. Such an encoder cannot be
    trained, and ``Rerank`` does not take it.

    Args:
        model: LiteLLM's name, such as ``openai/text-embedding-3-small``, ``ollama/nomic-embed-text``,
            ``cohere/embed-english-v3.0``, or ``openai/NAME`` with ``api_base`` for any server that speaks OpenAI's
            protocol. It is always a hosted model, also where a folder or a hub's model has the same name.
        query_prefix: Put before every query, for models on your own server that want one.
        passage_prefix: Put before every passage, as above.
        query_options: Further parameters of LiteLLM's for queries: ``input_type``, ``prompt_name``, ``task``,
            ``task_type`` or ``truncate``. None takes what the provider's models tell queries by (``cohere``,
            ``gemini``, ``jina_ai``, ``nvidia_nim``, ``vertex_ai`` and ``voyage``); ``{}`` sends none.
        passage_options: The same for passages.
        dimensions: Length of the vectors, for models that can shorten theirs.
        batch_size: Texts in one request.
        num_threads: Requests in flight at the same time.
        api_base: The address; None takes the provider's own, or its environment variable. For ``cohere/`` LiteLLM wants
            the whole one, such as ``https://host/v2/embed``.
        api_key: The key; None takes the provider's environment variable.
        timeout: As for ``Endpoint``.
        num_retries: As for ``Endpoint``.
        cache: A file in which vectors are kept (SQLite; it holds hashes of texts, and vectors); None keeps them in
            memory.

    Raises:
        SettingsError: For a name without a provider, an option of another name, or numbers out of range.
        CheckpointError: If ``cache`` is no file of vectors, or is damaged.

    Example:
        >>> encoder = RemoteEncoder("cohere/embed-english-v3.0", dimensions=256)
        >>> encoder.query_options, encoder.passage_options
        ({'input_type': 'search_query'}, {'input_type': 'search_document'})
        >>> encoder
        RemoteEncoder('cohere/embed-english-v3.0')
    """

    def __init__(
        self,
        model: str,
        *,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        query_options: Mapping[str, str] | None = None,
        passage_options: Mapping[str, str] | None = None,
        dimensions: int | None = None,
        batch_size: int = 64,
        num_threads: int = 4,
        api_base: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        num_retries: int = 3,
        cache: str | PathLike[str] | None = None,
    ) -> None:
        if not all(is_whole(one) and one >= 1 for one in (batch_size, num_threads, dimensions or 1)) or dimensions == 0:
            raise SettingsError(
                "batch_size, num_threads and dimensions must be at least 1 and whole, got "
                f"{batch_size!r}, {num_threads!r} and {dimensions!r}."
            )
        self._endpoint = Endpoint(model, api_base=api_base, api_key=api_key, timeout=timeout, num_retries=num_retries)
        query, passage = _ROLES.get(self._endpoint.provider, ({}, {}))
        self.name = self._endpoint.model  # without an address
        self.query_prefix = query_prefix
        self.passage_prefix = passage_prefix
        self.max_length = None
        self.query_options = _checked(query if query_options is None else query_options)
        self.passage_options = _checked(passage if passage_options is None else passage_options)
        self.dimensions = dimensions
        self.batch_size = batch_size
        self.num_threads = num_threads
        self._kept: _Kept = Recent(_RECENT_VECTORS) if cache is None else VectorFile(cache)
        self._length = dimensions or 0  # of every vector, as soon as it is known

    def __repr__(self) -> str:
        return f"RemoteEncoder({self.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": Recent(_RECENT_VECTORS)}  # the file is one of this machine

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the passage vectors but the weights themselves: their provider may change them."""
        return {
            "backend": "litellm",
            "model": self.name,
            "dimensions": self.dimensions,
            "passage_prefix": self.passage_prefix,
            "passage_options": self.passage_options,
            "max_length": None,
        }

    @property
    def query_settings(self) -> dict[str, Any]:
        """See ``TextEncoder``; ``own_address`` says that the address was given by hand."""
        return {
            **super().query_settings,
            "query_options": self.query_options,
            "own_address": self._endpoint.own_address,
        }

    @property
    def window(self) -> int | None:
        """How many tokens of a text are read, where LiteLLM's list of models says so; texts are sent whole."""
        import litellm

        listed = litellm.model_cost.get(self.name) or litellm.model_cost.get(self.name.partition("/")[2]) or {}
        tokens = listed.get("max_input_tokens")
        return int(tokens) if tokens and listed.get("mode") == "embedding" else None

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens, roughly: one for every four bytes."""
        return math.ceil(len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN)

    def _encode(self, texts: list[str], *, query: bool, show_progress: bool) -> Vectors:
        import numpy as np
        from tqdm.auto import tqdm

        if not texts:
            return np.zeros((0, self._length), dtype=np.float32)
        prefix = (self.query_prefix if query else self.passage_prefix) or ""
        options = self.query_options if query else self.passage_options
        key_of = {text: self._key(prefix + text, options) for text in texts}
        found = self._kept.read(list(key_of.values()))
        for vector in found.values():  # before those of other weights are asked for, and kept beside them
            self._expect(len(vector))
        missing = [text for text, key in key_of.items() if key not in found]
        batches = [missing[start : start + self.batch_size] for start in range(0, len(missing), self.batch_size)]

        def ask(batch: list[str]) -> None:
            vectors = self._ask([prefix + text for text in batch], options)
            got = {key_of[text]: vector for text, vector in zip(batch, vectors, strict=True)}
            self._kept.write(got)  # a later batch may fail
            found.update(got)
            bar.update(len(batch))

        with tqdm(
            total=len(missing),
            desc=printable(self.name),
            unit="text",
            disable=None if show_progress and missing else True,
        ) as bar:
            each_in_threads(ask, batches, self.num_threads)
        return np.stack([found[key_of[text]] for text in texts])

    def _key(self, text: str, options: Mapping[str, str]) -> bytes:
        """A hash of all that decides a vector."""
        decided = json.dumps([self._endpoint.told, self.dimensions, sorted(options.items()), text])
        return hashlib.sha256(decided.encode()).digest()

    def _ask(self, texts: list[str], options: Mapping[str, str]) -> Vectors:
        """Unit vectors from the server, in the texts' order."""
        import numpy as np

        size = {} if self.dimensions is None else {"dimensions": self.dimensions}
        reply = self._endpoint.call("embedding", input=texts, **options, **size)
        try:
            rows = _by_index([dict(one) for one in reply.data or ()])
            if len(rows) == len(texts):
                found = np.array([row["embedding"] for row in rows], dtype=np.float64)
                vectors = checked_vectors(found, len(texts), "the reply")
        except DataError as error:
            raise self._endpoint.failure(None, str(error)) from None
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._endpoint.failure(None, "the vectors are not lists of numbers of one length") from None
        if len(rows) != len(texts):
            raise self._endpoint.failure(None, f"{len(texts)} texts were sent, {len(rows)} different vectors came back")
        self._expect(vectors.shape[1])
        return vectors

    def _expect(self, length: int) -> None:
        self._length = self._length or length
        if length != self._length:
            before = "were asked for" if self.dimensions else "came before"
            raise self._endpoint.failure(
                400,
                f"a vector has {length} dimensions where {self._length} {before}; if other weights stand behind the "
                "name now, encode everything again, with another cache file",
            )


def _by_index(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in the order of their ``index``, each place once; as they came where the server numbers none."""
    if all(row.get("index") is None for row in rows):
        return rows
    placed = {row.get("index"): row for row in rows}
    return [placed[place] for place in range(len(rows)) if place in placed]


def _checked(options: Mapping[str, str]) -> dict[str, str]:
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise SettingsError(f"query_options and passage_options take {', '.join(_OPTIONS)}; got {unknown}.")
    return dict(options)


class _Kept(Protocol):
    """The folder of kept vectors."""

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Those that are there."""

    def write(self, values: dict[bytes, Vectors]) -> None:
        """Keep vectors."""
