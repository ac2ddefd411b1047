"""Check the files of a saved program: their keys and values; everything else is refused before it is used.

Whoever writes a file also writes its hash, so that only this list stands between a folder from elsewhere and the LM
calls, addresses and code that DSPy would take from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import dspy
from dspy.adapters.types.base_type import CUSTOM_TYPE_END_IDENTIFIER, CUSTOM_TYPE_START_IDENTIFIER
from dspy.predict.parameter import Parameter
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from radio_dspy.core.errors import CheckpointError, UnsafeFileError
from radio_dspy.core.files import is_special
from radio_dspy.core.validation import is_plain_name, is_weights_name

METADATA = "metadata"  # DSPy's entry beside the parameters
LARGEST = 64 << 20  # bytes of a JSON file that says what something is
_DROPPED_BY_DSPY = ("api_base", "base_url", "model_list")  # of an LM's state, with a warning
_EMPTY: tuple[Any, ...] = (None, {}, [], "")
# An image or file in a text, which DSPy makes a part of the message: the LM, or its client, would fetch it.
_IMAGE = re.compile(  # one that is in the text itself, and nothing else
    rf'{CUSTOM_TYPE_START_IDENTIFIER}\[\{{"type": ?"image_url", ?"image_url": ?\{{"url": ?"data:[\w.+/-]+;base64,'
    rf'[\w+/=]*"\}}\}}\]{CUSTOM_TYPE_END_IDENTIFIER}'
)
ADDRESS = re.compile(r"://|^[\\/]{2}")  # a URL, or a share of another machine
Version = Annotated[str, StringConstraints(pattern=r"^[\w.+-]{1,40}$")]
Name = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]
Prefix = Annotated[str, StringConstraints(max_length=10_000)]


class Strict(BaseModel):
    """A part of a saved file: these keys and no others, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _FieldState(Strict):
    prefix: str
    description: str | None


class _SignatureState(Strict):
    instructions: str
    fields: list[_FieldState]


class _PredictorState(Strict):
    """The state of a ``dspy.Predict``, which would set any further entry as an attribute of itself."""

    traces: list[JsonValue]
    train: list[JsonValue]
    demos: list[dict[str, JsonValue]]
    signature: _SignatureState
    fields: dict[str, JsonValue] = {}
    lm: None  # DSPy looks it up: one that is missing is a damaged file


class _LMState(Strict):
    """The state of a ``dspy.LM`` without addresses and code."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    lm_class: Literal["dspy.clients.lm.LM"] | None = Field(None, alias="_dspy_lm_class")
    model: str
    model_type: Literal["chat", "text", "responses"] = "chat"
    engine: Literal["auto", "lm15", "litellm"] = "auto"
    cache: bool = True
    num_retries: int = Field(3, ge=0, le=100)
    use_developer_role: bool = False
    finetuning_model: str | None = None
    launch_kwargs: Annotated[dict[str, JsonValue], Field(max_length=0)] | None = None
    train_kwargs: Annotated[dict[str, JsonValue], Field(max_length=0)] | None = None
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    n: int | None = Field(None, ge=1, le=1000)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    rollout_id: int | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0, le=10)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=100)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    timeout: float | None = Field(None, gt=0)


class _Base(Strict):
    name: Name
    fingerprint: str


class _Settings(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    loss: str
    sampling: str
    tower: str
    epochs: int
    learning_rate: float


class _Calibration(Strict):
    kind: Literal["platt", "isotonic"]
    scores: list[float] = Field(min_length=1, max_length=100_000)
    probabilities: list[float] = Field(min_length=1, max_length=100_000)


class _Training(BaseModel):
    """A record of ``RADIO.compile``: what cards and manifests say of it; later releases may add entries."""

    model_config = ConfigDict(extra="allow", strict=True)

    base: _Base
    teacher: dict[str, float]
    encoder: str | None
    rationale_lm: str | None
    settings: _Settings
    questions: dict[str, int]
    groups: int
    updates: int
    decision: str
    relevance: str
    metrics: dict[str, dict[str, float | None]]
    calibration: _Calibration | None = None


class _WeightsState(Strict):
    """The state of ``RerankerWeights``."""

    checkpoint: Name
    architecture: Literal["cross-encoder", "bi-encoder", "late-interaction"] | None
    base: Name
    passage_checkpoint: Name | None
    max_length: int | None = Field(ge=1, le=1 << 20)
    query_prefix: Prefix | None
    passage_prefix: Prefix | None
    prompt: Prefix | None
    training: list[_Training]


class _Metadata(Strict):
    dependency_versions: dict[Literal["python", "dspy", "cloudpickle"], Version]


def problem_of(error: ValidationError) -> str:
    """The first thing that is wrong, in one line; pydantic's own text has several, and an address."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg'].removeprefix('Value error, ')}" if place else first["msg"]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a saved folder.

    Raises:
        ValueError: If it is no file, far too large, or holds no JSON object.
    """
    if is_special(path):
        raise ValueError("neither a file nor a folder")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST >> 20} MB")
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"a JSON {type(found).__name__} where an object is needed")
    return found


def check_state(program: dspy.Module, state: Mapping[str, Any]) -> None:
    """Hold the state of a whole program against what each of its parameters may be given; nothing is taken over yet.

    Args:
        program: Whose state it is.
        state: What its ``program.json`` holds.

    Raises:
        UnsafeFileError: If it names an LM, an address, code, or a setting of the calls to an LM.
        CheckpointError: If it is no state of this program.
    """
    parameters = dict(program.named_parameters())
    if unknown := set(state) - set(parameters) - {METADATA}:
        raise CheckpointError(f"it holds {sorted(unknown)[:3]}, which the program given does not have")
    try:
        _Metadata.model_validate(state.get(METADATA, {"dependency_versions": {}}))
    except ValidationError as error:
        raise CheckpointError(f"{METADATA}: {problem_of(error)}") from None
    for name, parameter in parameters.items():
        if name not in state:  # DSPy says so
            continue
        if isinstance(parameter, dspy.Predict):
            check_predictor(state[name], name)
        elif _is_dspys(parameter):
            _check_empty(state[name], name)


def check_predictor(state: Any, name: str = "A predictor", *, lm: bool = False) -> None:
    """Hold what a ``dspy.Predict`` is to load against what it writes.

    Args:
        state: The entry.
        name: The predictor's, for the error.
        lm: Whether an LM may be named, by its plain model name and settings of generation alone. DSPy's own files have
            one; a folder of ``radio_dspy.save`` never has.

    Raises:
        UnsafeFileError: If it says more than that.
        CheckpointError: If it is no such state.
    """
    known = state
    if lm and isinstance(state, dict) and isinstance(state.get("lm"), dict):
        _check_lm(state["lm"], name)
        known = {**state, "lm": None}
    try:
        _PredictorState.model_validate(known)
        if any(CUSTOM_TYPE_START_IDENTIFIER in text and not _IMAGE.fullmatch(text) for text in _texts(known["demos"])):
            raise UnsafeFileError(
                f"{name}: its demonstrations hold DSPy's mark of an image or a file that may lie at any address; do "
                "not trust the file."
            )
    except ValidationError as error:
        for one in error.errors():
            if one["type"] == "extra_forbidden" or (one["loc"][:1] == ("lm",) and one["type"] != "missing"):
                raise UnsafeFileError(
                    f"{name}: its state sets {'.'.join(map(str, one['loc']))!r:.100}; a saved one holds prompts and "
                    "demonstrations, never an LM, an address or settings of calls. Do not trust the file; set the LM "
                    "in your code."
                ) from None
        raise CheckpointError(f"{name}: not the state of a saved predictor ({problem_of(error)})") from None


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of fields among them."""
    if isinstance(value, str):
        yield value
    for one in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(one)


def check_weights(state: Mapping[str, Any]) -> None:
    """Hold the state of reranker weights, complete but for what is in it, against what they write.

    Raises:
        UnsafeFileError: If a checkpoint is named by an address.
        CheckpointError: If a value is of another type or out of range.
    """
    try:
        found = _WeightsState.model_validate({**state, "training": list(state["training"])})
    except (ValidationError, TypeError) as error:
        problem = problem_of(error) if isinstance(error, ValidationError) else "training: not a list"
        raise CheckpointError(f"Not a state of reranker weights ({problem}).") from None
    for name in (found.checkpoint, found.base, found.passage_checkpoint or ""):
        if ADDRESS.search(name):
            raise UnsafeFileError(
                f"The state of reranker weights names {name!r:.100}, which is an address; weights are a folder or a "
                "plain hub name. Do not trust the file."
            )
    if not is_weights_name(found.base):  # a server loads it to compare with
        raise UnsafeFileError(
            f"The state of reranker weights names the base {found.base!r:.100}, which is a place on a machine and no "
            "plain name. Do not trust the file."
        )


def _check_lm(state: dict[str, Any], name: str) -> None:
    kept = {key: value for key, value in state.items() if key not in _DROPPED_BY_DSPY}
    try:
        found = _LMState.model_validate(kept)
    except ValidationError as error:
        raise UnsafeFileError(
            f"{name}: its LM's state is refused ({problem_of(error)}); only a model's name and settings of generation "
            "are taken from a file. Set the LM in your code, or give load(..., allow_unsafe_lm_state=True) for a file "
            "that you wrote yourself."
        ) from None
    if not is_plain_name(found.model) or not is_plain_name(found.finetuning_model or "none/none"):
        raise UnsafeFileError(f"{name}: its LM's name is no plain one of a hosted model; set the LM in your code.")


def _is_dspys(parameter: Parameter) -> bool:
    """Whether a state is read by DSPy's own code: that of ``dspy.Flex``, for example, is source code, which it runs."""
    reader = next(one for one in type(parameter).__mro__ if "load_state" in vars(one))
    return reader.__module__.partition(".")[0] == "dspy"


def _check_empty(state: Any, name: str) -> None:
    values = list(state.values()) if isinstance(state, dict) else [state]
    if any(value not in _EMPTY for value in values):
        raise UnsafeFileError(f"{name}: its state may hold code that DSPy runs; it is neither saved nor loaded.")
