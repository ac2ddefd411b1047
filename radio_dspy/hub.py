"""Saved programs on the Hugging Face hub: a repository is a saved folder with a model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy

from radio_dspy import __version__, programs
from radio_dspy.cards import hub_names, training_text
from radio_dspy.errors import CheckpointError, RadioError, SettingsError
from radio_dspy.manifest import MANIFEST, UNREAD
from radio_dspy.saving import PROGRAM, save

_OURS = [PROGRAM, MANIFEST, "reranker*"]  # of an earlier push; what else is there is the user's
_TAGS = ("dspy", "rag", "rationale-distillation", "reranker")


def push_to_hub(
    program: dspy.Module,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Save a program into a repository of the Hugging Face hub, with a model card that says what trained it.

    The repository is made where it is missing. One that holds a saved program already gets the new one as a further
    commit: the card is written anew, but keeps metadata of yours, such as a licence. ``load`` reads it by its name.

    Args:
        program: What ``save`` would take.
        repo_id: ``"owner/name"``.
        private: Whether a new repository is private; one that is there stays as it is.
        token: With the right to write; None takes the one that you are logged in with. It is only sent, never written.
        commit_message: The commit's first line.

    Returns:
        The address of the commit.

    Raises:
        SettingsError: If the program cannot be saved, or the repository holds something else.
        RadioError: If the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi, ModelCard

    api = HfApi(token=token, library_name="radio-dspy", library_version=__version__)
    with tempfile.TemporaryDirectory(prefix="radio-dspy-") as temporary:
        folder = save(program, Path(temporary) / "program")
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        with _answers_of_the_hub(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            there = set(api.list_repo_files(repo_id))
            if MANIFEST not in there and (others := there - UNREAD):
                raise SettingsError(f"{repo_id}: holds something else already ({min(others)}); give another name.")
            said = ModelCard.load(repo_id, token=token).data.to_dict() if "README.md" in there else {}
            (folder / "README.md").write_text(model_card(repo_id, manifest, said), encoding="utf-8")
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or f"{manifest['program']}, saved by radio-dspy {__version__}",
                delete_patterns=_OURS,
            )
    return str(commit.commit_url)


def download(repo_id: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Fetch a repository into the hub's cache on this machine; what is there already is not fetched again.

    Args:
        repo_id: ``"owner/name"``.
        revision: A branch, tag or commit; None is ``main``.
        token: For a private repository; None takes the one that you are logged in with.

    Returns:
        The folder of that commit.

    Raises:
        CheckpointError: If the hub does not give it, or cannot be reached and the cache does not hold it.
    """
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, revision=revision, token=token))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, HTTPError) as error:
        raise CheckpointError(
            f"{repo_id}: no such folder on this machine, and the hub does not give a repository of that name "
            f"({type(error).__name__}). Check the name, the revision and the connection; a private repository needs "
            "`hf auth login` or token=."
        ) from error


@contextmanager
def _answers_of_the_hub(repo_id: str) -> Iterator[None]:
    """Turn what the hub's client raises into an error that says what to do."""
    from httpx import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError as error:
        raise SettingsError(f"{repo_id!r} is no name of a repository ({error}); give 'owner/name'.") from error
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RuntimeError) as error:
        said = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise RadioError(
            f"{repo_id}: the hub did not take the program ({said}). A push needs `hf auth login` or token=, with the "
            "right to write to the owner's repositories."
        ) from error


def model_card(repo_id: str, manifest: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> str:
    """The text of a model card for a saved program.

    Args:
        repo_id: Where it will be.
        manifest: The saved program's.
        metadata: What else the card's head says, for example ``{"license": "apache-2.0"}``.
    """
    from huggingface_hub import ModelCard, ModelCardData

    rerankers = manifest["rerankers"]
    head = {
        **(metadata or {}),
        "library_name": "radio-dspy",
        "pipeline_tag": "text-ranking",
        "tags": sorted({*_TAGS, *((metadata or {}).get("tags") or [])}),
        "base_model": hub_names(one["base"] for one in rerankers.values()) or None,
    }
    kind = manifest["program"]
    own = "" if kind in programs.__all__ else f"program={kind}()"
    text = _CARD.format(
        title=repo_id.rpartition("/")[2],
        kind=kind,
        release=manifest["versions"]["radio-dspy"],
        settings=", ".join(f"{name}={value}" for name, value in manifest["settings"].items()) or "none",
        call=f'radio.load("{repo_id}", {own or "retriever=retriever"})',
        rerankers="\n\n".join(_section(name, one) for name, one in rerankers.items()),
        versions=", ".join(f"{name} {number}" for name, number in manifest["versions"].items()),
    )
    return str(ModelCard(f"---\n{ModelCardData(**head).to_yaml()}\n---\n\n{text}"))


_CARD = """\
# {title}

A DSPy program (`{kind}`; settings: {settings}) with its reranker, saved by radio-dspy {release}. Prompts and
demonstrations are in `program.json`. Not part of it: the LM, and the passages with their index.

```python
import dspy
import radio_dspy as radio

program = {call}
with dspy.context(lm=dspy.LM("...")):
    ...
```

{rerankers}

## Licence

Not stated here. The licences of the base model and of the training data decide: add yours to the metadata above.

Saved with: {versions}.
"""


def _section(name: str, reranker: Mapping[str, Any]) -> str:
    """What a card says of one reranker."""
    lines = [
        f"## Reranker `{name}`",
        f"A {reranker['architecture']} from `{reranker['base']}`, content hash `{reranker['fingerprint']}`.",
    ]
    if not reranker["training"]:
        lines.append("No training by RADIO is on record for these weights.")
    return "\n\n".join([*lines, *map(training_text, reranker["training"])])
