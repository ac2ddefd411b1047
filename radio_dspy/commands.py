"""What the commands share: LMs by name, programs by task, files."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from radio_dspy.errors import DataError, SettingsError

if TYPE_CHECKING:
    import dspy

    from radio_dspy.encoders import TextEncoder
    from radio_dspy.retrievers.faiss import FaissRetriever

Task = Literal["qa", "choice", "multihop"]
DEFAULT_ENCODER = "all-MiniLM-L6-v2"


@contextlib.contextmanager
def open_lm(name: str, *, seed: int, max_tokens: int, temperature: float | None = None) -> Iterator[dspy.LM | None]:
    """``none``, ``local``, a GGUF file, or any LiteLLM name.

    Without a temperature a local one has its default, and a hosted one keeps all of its own settings.
    """
    import dspy

    from radio_dspy.lms import LOCAL_TEMPERATURE, local_lm

    if not name.strip():
        raise SettingsError("--lm is empty; give `local`, `none`, a GGUF file, or a LiteLLM name.")
    if "/" not in name and name not in ("none", "local") and not name.endswith(".gguf") and not _is_known(name):
        raise SettingsError(
            f"--lm {name}: no LM has this name; give `local`, `none`, a GGUF file, or a LiteLLM name with its provider "
            "(openai/gpt-4o-mini)."
        )
    if name == "none":
        yield None
    elif name == "local" or name.endswith(".gguf"):
        path, heat = None if name == "local" else name, LOCAL_TEMPERATURE if temperature is None else temperature
        with local_lm(path, seed=seed, max_tokens=max_tokens, temperature=heat) as model:
            yield model
    elif temperature is None:
        yield dspy.LM(name)
    else:
        yield dspy.LM(name, temperature=temperature, seed=seed, max_tokens=max_tokens)


def _is_known(name: str) -> bool:
    """Whether LiteLLM knows the provider of a name that gives none."""
    import litellm
    from litellm import get_llm_provider
    from litellm.exceptions import BadRequestError

    litellm.suppress_debug_info = True  # else it prints a list of providers
    try:
        return bool(get_llm_provider(name))
    except BadRequestError:
        return False


def build_index(corpus: Path, encoder: TextEncoder | str) -> FaissRetriever:
    """Index a corpus file."""
    import radio_dspy as radio

    return radio.FaissRetriever.build(radio.load_corpus(corpus), encoder=encoder, show_progress=True)


def open_retriever(index_folder: Path | None, corpus: Path | None, encoder: str | None) -> FaissRetriever:
    """A saved index, or a new one of a corpus file."""
    import radio_dspy as radio

    if (index_folder is None) == (corpus is None):
        raise SettingsError("Give either --index (a folder that `radio-dspy index` wrote) or --corpus (JSON Lines).")
    if index_folder is not None:
        return radio.FaissRetriever.load(index_folder, encoder=encoder)
    return build_index(Path(str(corpus)), encoder or DEFAULT_ENCODER)


def read_rationales(path: Path, questions: Sequence[dspy.Example], used: Sequence[dspy.Example]) -> dict[str, str]:
    """The rationales of the questions that are used; one of a question that the files do not hold is an error."""
    from radio_dspy.datasets import read_jsonl
    from radio_dspy.passages import checked_text, plain_text

    known = {str(example.id) for example in questions}
    found: dict[str, str] = {}
    for where, row in read_jsonl(path):
        if not isinstance(row.get("rationale"), str) or "id" not in row:
            raise DataError(f"{where}: needs 'id' and a string 'rationale', got {sorted(row)!r}.")
        key, text = plain_text(row["id"], f"{where}: 'id'"), checked_text(row["rationale"], f"{where}: 'rationale'")
        if key not in known:
            raise DataError(f"{where}: holds a rationale of {key!r}, which is no question of --train or --dev.")
        if found.setdefault(key, text) != text:
            sys.stderr.write(f"{where}: question {key!r} has a rationale already, the first one is used.\n")
    wanted = {str(example.id) for example in used}
    return {key: text for key, text in found.items() if key in wanted}


def open_program(
    task: Task, retriever: FaissRetriever, rerank: dspy.Module, *, candidates: int, k: int, hops: int
) -> dspy.Module:
    """The program for a task."""
    import radio_dspy as radio

    if task == "choice":
        return radio.MultipleChoice(retriever, rerank, candidates=candidates, k=k)
    if task == "multihop":
        return radio.MultiHop(retriever, rerank, hops=hops, candidates=candidates, k=k)
    return radio.RetrieveRerankAnswer(retriever, rerank, candidates=candidates, k=k)


def remember_command(run_dir: Path | None, command: str, arguments: Mapping[str, Any]) -> None:
    """Keep a command in its run folder, for ``radio-dspy runs resume``."""
    from radio_dspy.runs import Run

    if run_dir is not None:
        told = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
        Run(run_dir).remember_command({"command": command, "folder": str(Path.cwd()), "arguments": told})


def restored_arguments(command: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What ``remember_command`` kept, with paths as paths again."""
    hints = get_type_hints(command)
    paths = {name for name, hint in hints.items() if Path in (hint, *get_args(hint))}
    return {name: Path(value) if name in paths and value is not None else value for name, value in arguments.items()}


def write_result(path: Path | None, value: dict[str, Any]) -> None:
    """Write a command's result as JSON, where a file is asked for."""
    from radio_dspy.files import write_json

    if path is not None:
        write_json(path, json.loads(json.dumps(value, default=str)))
