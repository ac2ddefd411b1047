"""Open a vector store by its address."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.redaction import learn
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.retrievers.stores import shared

_FORMS = (
    "postgresql://host/database, qdrant+http://host:6333, qdrant:///folder, lancedb:///folder, chroma:///folder, "
    "chroma+http://host:8000, milvus:///file.db or milvus+http://host:19530"
)
_WORD = re.compile(r"(?<=[?&])(?:password|api_key|token|passfile|sslpassword)=[^&]*&?")


def open_store(
    address: str, table: str, encoder: TextEncoder | str, *, k: int = 20, names: Mapping[str, Any] | None = None
) -> shared.StoreRetriever:
    """The retriever over a table or collection of a store.

    Keys are never part of an address: a server of Qdrant, Chroma or Milvus gets ``QDRANT_API_KEY``,
    ``CHROMA_API_KEY`` or ``MILVUS_TOKEN``.

    Args:
        address: Such as ``postgresql://user@host/database``, ``qdrant+http://host:6333`` or ``lancedb:///folder``.
        table: The table or collection.
        encoder: What made the vectors.
        k: How many passages a call returns when it does not say.
        names: What the store calls ``id``, ``text``, ``title``, ``embedding`` and ``metadata``, where not as usual.

    Raises:
        SettingsError: For another address, a local store that is not there, or a name that the store does not take.
        StoreError: If the store is down or lacks what is asked for.

    Example:
        >>> open_store("oracle://host", "passages", "all-MiniLM-L6-v2")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        radio_dspy.core.errors.SettingsError: --store cannot be 'oracle'; give postgresql://host/database, ...
    """
    kind, _, protocol = address.partition("://")[0].partition("+")
    kind = "postgresql" if kind == "postgres" else kind
    if kind not in _OPENERS or (protocol and protocol not in ("http", "https")) or "://" not in address:
        raise SettingsError(f"--store cannot be {kind!r:.40}; give {_FORMS}.")
    if kind == "postgresql":
        place = address
    elif protocol:
        place = address.partition("+")[2]
    else:
        place = str(Path(address.partition("://")[2]))
        if not Path(place).exists():  # the clients would make a new one
            raise SettingsError(f"{place}: no such store; give the path of one that is there.")
    try:
        with shared.asking(f"{kind} store"):
            return _OPENERS[kind](place, bool(protocol), table, encoder, {"k": k, **(names or {})})
    except TypeError as error:
        raise SettingsError(f"A {kind} store does not take one of the names {sorted(names or {})}.") from error


def shown_store(address: str) -> str:
    """An address without password or key, for files and people.

    Example:
        >>> shown_store("postgresql://me:secret@host/db?password=x&sslmode=require")
        'postgresql://me@host/db?sslmode=require'
    """
    learn({"address": address})
    scheme, _, rest = address.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{_WORD.sub('', place)}".rstrip("?&")


def _postgresql(place: str, hosted: bool, table: str, encoder: Any, options: dict[str, Any]) -> shared.StoreRetriever:
    from radio_dspy.retrievers.stores.pgvector import PgVectorRetriever

    return PgVectorRetriever(place, table, encoder, **options)


def _qdrant(place: str, hosted: bool, table: str, encoder: Any, options: dict[str, Any]) -> shared.StoreRetriever:
    from radio_dspy.retrievers.stores.qdrant import QdrantRetriever

    where = {"url": place, "api_key": os.environ.get("QDRANT_API_KEY")} if hosted else {"path": place}
    return QdrantRetriever(shared.needed("qdrant_client", "qdrant").QdrantClient(**where), table, encoder, **options)


def _chroma(place: str, hosted: bool, table: str, encoder: Any, options: dict[str, Any]) -> shared.StoreRetriever:
    from radio_dspy.retrievers.stores.chroma import ChromaRetriever

    client = shared.needed("chromadb", "chroma")
    if hosted:
        where, key = urlsplit(place), os.environ.get("CHROMA_API_KEY")
        opened = client.HttpClient(
            host=where.hostname or "localhost",
            port=where.port or 8000,
            ssl=where.scheme == "https",
            headers={"x-chroma-token": key} if key else None,
        )
    else:
        opened = client.PersistentClient(place)
    return ChromaRetriever(opened.get_collection(table, embedding_function=None), encoder, **options)


def _lancedb(place: str, hosted: bool, table: str, encoder: Any, options: dict[str, Any]) -> shared.StoreRetriever:
    from radio_dspy.retrievers.stores.lancedb import LanceDBRetriever

    return LanceDBRetriever(shared.needed("lancedb", "lancedb").connect(place).open_table(table), encoder, **options)


def _milvus(place: str, hosted: bool, table: str, encoder: Any, options: dict[str, Any]) -> shared.StoreRetriever:
    from radio_dspy.retrievers.stores.milvus import MilvusRetriever

    client = shared.needed("pymilvus", "milvus").MilvusClient(place, token=os.environ.get("MILVUS_TOKEN") or "")
    return MilvusRetriever(client, table, encoder, **options)


_OPENERS: dict[str, Callable[..., shared.StoreRetriever]] = {
    "postgresql": _postgresql,
    "qdrant": _qdrant,
    "chroma": _chroma,
    "lancedb": _lancedb,
    "milvus": _milvus,
}
