"""Saved programs as models of MLflow: weights and index inside, served by ``mlflow models serve``."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy._version import __version__
from radio_dspy.core.errors import CheckpointError, MissingExtraError, SettingsError
from radio_dspy.core.files import SYSTEM_FILES
from radio_dspy.core.passages import as_passages
from radio_dspy.lm.opening import open_lm
from radio_dspy.models.encoder import Encoder
from radio_dspy.models.files import copy_weights, weights_name
from radio_dspy.persistence.saving import load, save
from radio_dspy.retrievers.base import retriever_of
from radio_dspy.retrievers.faiss import FaissRetriever
from radio_dspy.retrievers.index_folder import read_manifest

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

_PROGRAM, _INDEX, _ENCODER = "program", "index", "encoder"
# What MLflow keeps in place of a pickle, and runs to serve the model.
_CODE = """from mlflow.models import set_model
from radio_dspy.persistence.mlflow_models import logged_program

set_model(logged_program())
"""
_ADVICE = "MLflow is missing: pip install 'radio-dspy[tracing]'"


def log_model(
    program: dspy.Module, name: str = "program", *, index: bool = True, lm: str = "none", max_tokens: int = 64
) -> ModelInfo:
    """Log a program as a model of MLflow, into the active run or a new one.

    The model is plain files, as ``save`` writes them, and no pickle. ``load_model`` gives the program back; as a pyfunc
    it takes ``question`` (and ``choices``, for multiple choice) and gives ``answer``, ``passages`` and ``scores``.

    Args:
        program: What ``save`` would take.
        name: The model's name in the run.
        index: Whether the index of its ``FaissRetriever`` is part of the model, with an encoder that is a folder;
            the pyfunc needs it.
        lm: Answers the pyfunc's questions: a name as for ``--lm``. Its key stays in the environment. With ``"none"``
            the pyfunc gives the passages alone.
        max_tokens: Longest answer of a local LM.

    Returns:
        What MLflow says of the model, with its ``model_uri``.

    Raises:
        SettingsError: If the program cannot be saved, or its index is no ``FaissRetriever``'s.
        MissingExtraError: If MLflow is missing.
    """
    models, pyfunc = _mlflow()
    retriever = retriever_of(program)
    if index and not isinstance(retriever, FaissRetriever):
        raise SettingsError(f"index=True needs a FaissRetriever, got {type(retriever).__name__}; give index=False.")
    with tempfile.TemporaryDirectory(prefix="radio-dspy-") as folder:
        artifacts = {_PROGRAM: str(save(program, Path(folder) / _PROGRAM))}
        if isinstance(retriever, FaissRetriever) and index:
            retriever.save(Path(folder) / _INDEX)
            artifacts[_INDEX] = str(Path(folder) / _INDEX)
            if isinstance(encoder := retriever.encoder, Encoder) and _lies_here_alone(encoder.name):
                copy_weights(encoder.name, Path(folder) / _ENCODER / Path(encoder.name).name)
                artifacts[_ENCODER] = str(Path(folder) / _ENCODER)
        code = Path(folder) / "model.py"
        code.write_text(_CODE, encoding="utf-8")
        info: ModelInfo = pyfunc.log_model(
            name=name,
            python_model=str(code),
            artifacts=artifacts,
            model_config={"lm": lm, "max_tokens": max_tokens},
            signature=_signature(models, choices=hasattr(program, "choose")),
            pip_requirements=[f"radio-dspy[local,tracing]=={__version__}", f"dspy=={version('dspy')}"],
        )
    return info


def _lies_here_alone(encoder: str) -> bool:
    """Whether weights lie in a folder of the user's; those of a package or of the hub are found by their name."""
    return Path(encoder).is_dir() and weights_name(encoder) == Path(encoder).name


def load_model(uri: str, retriever: dspy.Module | None = None, *, program: dspy.Module | None = None) -> dspy.Module:
    """Load a program that ``log_model`` logged; nothing of it is run as code.

    Args:
        uri: ``models:/name/1``, ``runs:/RUN/program`` or what ``log_model`` returned as ``model_uri``.
        retriever: As for ``load``; None opens the index that is part of the model.
        program: As for ``load``.

    Raises:
        CheckpointError: If no such model is there, as for ``load``.
        MissingExtraError: If MLflow is missing.
    """
    _mlflow()
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(download_artifacts(uri)) / "artifacts"
    except (MlflowException, OSError) as error:
        raise CheckpointError(f"{uri}: MLflow gives no such model ({str(error)[:200]}); check the address.") from None
    if link := next((one for one in (folder / _PROGRAM, folder / _INDEX, folder / _ENCODER) if one.is_symlink()), None):
        raise CheckpointError(f"{uri}: {link.name} is a link; nothing outside the model is loaded.")
    if retriever is None and program is None:
        if not (folder / _INDEX).is_dir():
            raise SettingsError(f"{uri}: was logged without its index; give load_model(..., retriever=).")
        retriever = _opened_index(folder)
    return load(folder / _PROGRAM, retriever, program=program)


def _opened_index(folder: Path) -> FaissRetriever:
    """The index of a logged model, with the encoder beside it where that is no name of the hub."""
    if not (folder / _ENCODER).is_dir():
        return FaissRetriever.load(folder / _INDEX)
    said: Any = read_manifest(folder / _INDEX)
    # Under the name by which the index knows it.
    found = [one for one in (folder / _ENCODER).iterdir() if one.name not in SYSTEM_FILES]
    if len(found) != 1 or found[0].is_symlink() or not found[0].is_dir():
        raise CheckpointError(f"{folder / _ENCODER}: needs one folder of weights; log the model again.")
    weights = found[0]
    encoder = Encoder(
        str(weights),
        query_prefix=said.query_prefix,
        passage_prefix=said.encoder["passage_prefix"],
        max_length=said.encoder["max_length"],
    )
    return FaissRetriever.load(folder / _INDEX, encoder=encoder)


def answers(program: Any, lm: dspy.LM | None, rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the pyfunc gives for rows of questions.

    Args:
        program: The loaded program.
        lm: Answers; None ranks passages alone.
        rows: With ``question``, and ``choices`` where the program takes them.
    """
    found = []
    for row in rows:
        inputs = {name: value for name, value in row.items() if name in ("question", "choices") and value is not None}
        if lm is None:
            candidates = program.retriever(inputs["question"], k=program.candidates).passages
            result = program.rerank(inputs["question"], candidates, k=program.k)
        else:
            with dspy.context(lm=lm):
                result = program(**inputs)
        passages = [{"id": one.id, "title": one.title, "text": one.text} for one in as_passages(result.passages)]
        answer = "" if lm is None else str(result.answer)
        found.append({"answer": answer, "passages": passages, "scores": [float(one) for one in result.scores]})
    return found


def logged_program() -> Any:
    """The pyfunc of a logged program."""
    kind: Any = _mlflow()[1].PythonModel

    class LoggedProgram(kind):
        """A program that is opened with its index, and its LM, which a local model keeps running."""

        def load_context(self, context: Any) -> None:
            if _INDEX not in context.artifacts:
                raise SettingsError("This model was logged without its index, which a pyfunc needs; give index=True.")
            folder = Path(context.artifacts[_INDEX]).parent
            self._program = load(folder / _PROGRAM, _opened_index(folder))
            named = context.model_config
            self._open = contextlib.ExitStack()
            self._lm = self._open.enter_context(open_lm(named["lm"], seed=42, max_tokens=named["max_tokens"]))

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads types
            return answers(self._program, self._lm, model_input.to_dict("records"))

    return LoggedProgram()


def _mlflow() -> tuple[Any, Any]:
    try:
        from mlflow import models, pyfunc
    except ImportError as error:
        raise MissingExtraError(_ADVICE) from error
    return models, pyfunc


def _signature(models: Any, *, choices: bool) -> Any:
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    text = DataType.string
    passage = Object([Property(name, text) for name in ("id", "title", "text")])
    asked: list[Any] = [ColSpec(text, "question"), *([ColSpec(Array(text), "choices")] if choices else [])]
    said: list[Any] = [
        ColSpec(text, "answer"),
        ColSpec(Array(passage), "passages"),
        ColSpec(Array(DataType.double), "scores"),
    ]
    return models.ModelSignature(inputs=Schema(asked), outputs=Schema(said))
