"""Open the encoder that a saved index names, if it is safe to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from radio_dspy.core.errors import UnsafeFileError
from radio_dspy.core.states import Name, Prefix, Strict, problem_of
from radio_dspy.core.validation import is_plain_name, is_weights_name
from radio_dspy.models.open_encoder import EMBEDDING_PROVIDERS

if TYPE_CHECKING:
    from radio_dspy.retrievers.index_folder import IndexManifest


class _Local(Strict):
    model: Name
    fingerprint: str
    passage_prefix: Prefix | None
    max_length: int | None = Field(ge=1)


_Options = dict[
    Literal["input_type", "prompt_name", "task", "task_type", "truncate"],
    Annotated[str, StringConstraints(pattern=r"^[\w. -]{0,100}$")],
]


class _Hosted(Strict):
    backend: Literal["litellm"]
    model: Name
    dimensions: int | None = Field(ge=1)
    passage_prefix: Prefix | None
    passage_options: _Options
    max_length: None
    query_options: _Options
    own_address: bool


def check_encoder(folder: Path, manifest: IndexManifest) -> None:
    """See that an encoder may be opened by what a manifest says, which a stranger may have written.

    Raises:
        UnsafeFileError: If it names an address, settings that are not an encoder's, or an encoder of the user's own.
    """
    said = manifest.encoder
    hosted = said.get("backend") is not None
    try:
        if hosted:
            _Hosted.model_validate({**said, **manifest.model_dump(include={"query_options", "own_address"})})
        else:
            _Local.model_validate(said)
    except ValidationError as error:
        raise UnsafeFileError(
            f"{folder}: its encoder cannot be opened by what the manifest says ({problem_of(error)}); give encoder=."
        ) from None
    name = str(said["model"])
    if hosted and not manifest.own_address and not _is_known(name):
        raise UnsafeFileError(
            f"{folder}: names the hosted encoder {name!r:.100}, which is not a plain name of a known provider: every "
            "question would go there. If you know it, give encoder=RemoteEncoder(...)."
        )
    if not hosted and not is_weights_name(name):
        raise UnsafeFileError(f"{folder}: names the encoder {name!r:.100}, which is no plain name; give encoder=.")


def _is_known(name: str) -> bool:
    return name.partition("/")[0] in EMBEDDING_PROVIDERS and is_plain_name(name)
