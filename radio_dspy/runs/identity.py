"""Hash programs, retrievers and inputs, to tell whether a recorded call is still valid."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import dspy

from radio_dspy.lm.calls import call_key
from radio_dspy.models.encoder import TextEncoder
from radio_dspy.models.files import fingerprint
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.embeddings import first_stage_of

_OWN = "radio-dspy 1"


def run_keys(program: dspy.Module, examples: Iterable[dspy.Example]) -> list[str]:
    """For each question a hash of what decides what the program does with it: program, LM, and the inputs."""
    lm = dspy.settings.lm
    known = [program_key(program), call_key(lm, lm.kwargs, []) if lm is not None else None]
    return [hash_of([*known, _inputs(example)]) for example in examples]


def _inputs(example: dspy.Example) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in example.inputs().items()}
    except ValueError:  # it does not say which fields are inputs, and the program will fail on it
        return {}


def hash_of(value: Any) -> str:
    """A hash of JSON types; anything else is told by its text."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]


def program_key(program: dspy.Module) -> str:
    """A hash of what a program does, as far as it can be seen from outside.

    That is its state, the plain attributes and the source of every module in it, and its retriever's corpus and
    encoder. Functions and tools beside the modules are not seen.
    """
    parts: list[Any] = []
    for name, module in program.named_sub_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, bool | int | float | str)}
        if isinstance(module, dspy.Predict):
            plain.pop("stage", None)  # drawn at random for each object
        kind: Any = type(module)
        parts.append([name, kind.__qualname__, plain, source_of(kind)])
    for name, one in program.named_parameters():
        if isinstance(one, RerankerWeights):  # the same weights may lie elsewhere
            sides = [one.fingerprint, fingerprint(one.passage_side)]
            about = [name, sides, one.architecture, one.max_length, one.query_prefix, one.passage_prefix]
            parts.append(about if one.prompt is None else [*about, one.prompt])  # keys of earlier releases stay true
            continue
        try:
            parts.append([name, one.dump_state(json_mode=True)])
        except TypeError:  # dspy.Retrieve, for example, has none that can be written
            parts.append([name, type(one).__qualname__])
    retriever = first_stage_of(program)
    parts.append(retriever_identity(retriever) if retriever is not None else None)
    return hash_of(parts)


@functools.lru_cache(maxsize=64)
def source_of(kind: Any) -> str:
    """The source of a class or function; empty where it cannot be seen.

    Our own are the same from release to release, whatever their source: what was paid for is found again. One that
    does something else gets another ``_OWN``.
    """
    if getattr(kind, "__module__", "").startswith("radio_dspy."):
        return _OWN
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError, SyntaxError):  # typed into an interpreter, or made of another kind of file
        return ""


def retriever_identity(retriever: Retriever) -> dict[str, Any]:
    """Everything that decides a retriever's results, as JSON types; the corpus as a hash of its ids and texts."""
    encoders = [getattr(retriever, name, None) for name in ("encoder", "query_encoder")]
    told = [{**one.identity, **one.query_settings} for one in encoders if isinstance(one, TextEncoder)]
    found = {"retriever": type(retriever).__name__, "encoders": told, "corpus": _corpus_hash(retriever)}
    store, bound = getattr(retriever, "store", None), getattr(retriever, "filter", None)
    if store is not None and not hasattr(retriever, "passages"):  # what it holds is not seen from here
        found["store"] = store.name
    return {**found, "filter": bound} if bound else found


_CORPUS_HASHES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # a corpus does not change, and copies share it


def _corpus_hash(retriever: Retriever) -> str:
    shared = getattr(retriever, "_store", retriever)
    if shared not in _CORPUS_HASHES:
        digest = hashlib.sha256()
        for passage in getattr(retriever, "passages", ()):
            digest.update(f"{passage.id}\0{passage.contents}\0".encode("utf-8", "replace"))
        _CORPUS_HASHES[shared] = digest.hexdigest()[:16]
    return _CORPUS_HASHES[shared]
