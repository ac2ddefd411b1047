"""Saved programs on the Hugging Face hub: a repository is a saved folder with a model card."""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy

from radio_dspy import programs
from radio_dspy._version import __version__
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.core.html import code, plain
from radio_dspy.core.redaction import learn
from radio_dspy.persistence.hub_download import _answers_of_the_hub
from radio_dspy.persistence.manifest import MANIFEST, UNREAD, is_part, read_manifest
from radio_dspy.persistence.model_card import hub_names, training_text
from radio_dspy.persistence.saving import save

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
    from huggingface_hub import HfApi, ModelCard, get_token, hf_hub_download

    learn({"token": token or get_token()})
    api = HfApi(token=token, library_name="radio-dspy", library_version=__version__)
    with tempfile.TemporaryDirectory(prefix="radio-dspy-") as temporary:
        folder = save(program, Path(temporary) / "program")
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        with _answers_of_the_hub(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            there = set(api.list_repo_files(repo_id))
            earlier: set[str] = set()  # what an earlier push wrote; what else is there is the user's
            if MANIFEST in there:
                try:
                    said = read_manifest(Path(hf_hub_download(repo_id, MANIFEST, token=token)))
                    earlier = set(filter(is_part, said["files"]))  # whoever wrote it may have listed anything
                except CheckpointError as error:
                    raise SettingsError(
                        f"{repo_id}: holds something else already ({error}); give another name."
                    ) from error
            elif others := there - UNREAD:
                raise SettingsError(f"{repo_id}: holds something else already ({min(others)}); give another name.")
            head = ModelCard.load(repo_id, token=token).data.to_dict() if "README.md" in there else {}
            (folder / "README.md").write_text(model_card(repo_id, manifest, head), encoding="utf-8")
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or f"{manifest['program']}, saved by radio-dspy {__version__}",
                delete_patterns=[glob.escape(name) for name in sorted(earlier - UNREAD)],
            )
    return str(commit.commit_url)


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
    own = "" if kind in programs.__all__ else f"program={kind if kind.isidentifier() else '...'}()"
    text = _CARD.format(
        title=plain(repo_id.rpartition("/")[2]),
        kind=code(kind),
        release=plain(manifest["versions"]["radio-dspy"]),
        settings=", ".join(plain(f"{name}={value}") for name, value in manifest["settings"].items()) or "none",
        call=f'radio.load("{repo_id}", {own or "retriever=retriever"})',
        rerankers="\n\n".join(_section(name, one) for name, one in rerankers.items()),
        versions=", ".join(plain(f"{name} {number}") for name, number in manifest["versions"].items()),
    )
    return str(ModelCard(f"---\n{ModelCardData(**head).to_yaml()}\n---\n\n{text}"))


_CARD = """\
# {title}

A DSPy program ({kind}; settings: {settings}) with its reranker, saved by radio-dspy {release}. Prompts and
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
    """A model card's entry for one reranker."""
    lines = [
        f"## Reranker {code(name)}",
        f"A {plain(reranker['architecture'])} from {code(reranker['base'])}, content hash "
        f"{code(reranker['fingerprint'])}.",
    ]
    if not reranker["training"]:
        lines.append("No training by RADIO is on record for these weights.")
    return "\n\n".join([*lines, *map(training_text, reranker["training"])])
