"""Old module paths: importing one warns and gives the module that replaced it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = "radio_dspy."
# Old path -> where its names live now; the first is the module that replaced it.
_MOVED: dict[str, list[str]] = {
    "adapters": ["lm.adapters"],
    "cards": ["persistence.model_card"],
    "commands": ["cli.inputs", "cli.command", "cli.options", "cli.remembered", "lm.opening", "programs.tasks"],
    "comparison": ["reporting.comparison", "evaluation.effects"],
    "demonstration": ["cli.demonstration"],
    "distillation.alignment": ["distillation.train_and_gate"],
    "distillation.averaging": ["distillation.training.averaging"],
    "distillation.bulk": ["lm.calls"],
    "distillation.checkpoints": ["distillation.training.checkpoints"],
    "distillation.collapse": ["distillation.training.collapse"],
    "distillation.extractor": ["distillation.rationales.extractor", "lm.calls"],
    "distillation.fusion": ["distillation.teacher.fusion"],
    "distillation.given_groups": ["distillation.preferences.from_groups"],
    "distillation.groups": ["distillation.preferences.groups", "distillation.preferences.sampling"],
    "distillation.guards": ["distillation.preferences.guards", "distillation.rationales.checks"],
    "distillation.infonce": ["distillation.losses"],
    "distillation.judges": ["distillation.gate.metrics"],
    "distillation.listwise": ["distillation.losses"],
    "distillation.lm_signals": ["distillation.teacher.lm_signals", "distillation.teacher.lm_signal"],
    "distillation.lora": ["distillation.training.adapters"],
    "distillation.margin": ["distillation.losses"],
    "distillation.observation": [
        "distillation.candidates.observing",
        "distillation.candidates.recording",
        "runs.identity",
    ],
    "distillation.reranker_signal": ["distillation.teacher.signals"],
    "distillation.seats": ["distillation.candidates.reranker_slots", "core.modules", "retrievers.base"],
    "distillation.settings": ["distillation.training.settings"],
    "distillation.signals": ["distillation.teacher.signals"],
    "distillation.splitting": ["distillation.gate.splitting"],
    "embeddings": ["models.remote_encoder"],
    "encoders": ["models.encoder", "models.open_encoder", "models.shared"],
    "endpoints": ["models.endpoint", "core.validation"],
    "errors": ["core.errors"],
    "exporting": ["persistence.export"],
    "failures": ["lm.calls"],
    "files": ["core.files"],
    "flagembedding": ["datasets.groups"],
    "hub": ["persistence.hub", "persistence.hub_download"],
    "interrupts": ["lm.parallel"],
    "llama": ["lm.llama_server"],
    "lms": ["lm.local", "lm.logprobs"],
    "manifest": ["persistence.manifest"],
    "markup": ["core.html"],
    "metrics": ["evaluation.metrics"],
    "mmlu": ["evaluation.mmlu", "datasets.options"],
    "model_files": ["models.files"],
    "onnx_export": ["persistence.onnx"],
    "packing": ["models.packing"],
    "passages": ["core.passages", "core.rankings", "core.text", "core.validation"],
    "precision": ["models.precision"],
    "redaction": ["core.redaction", "lm.secrets"],
    "report": ["reporting.report"],
    "reporting.page": ["reporting.html_page"],
    "rerankers.scorers": [
        "models.scorer",
        "models.bi_encoder",
        "models.cache",
        "models.cross_encoder",
        "models.shared",
    ],
    "rerankers.weights": ["models.weights"],
    "retrievers.index_kinds": ["retrievers.faiss_index", "retrievers.index_layout"],
    "saving": ["persistence.saving"],
    "signatures": ["lm.signatures"],
    "significance": ["evaluation.significance"],
    "spending": ["lm.budget"],
    "streaming": ["lm.streaming"],
    "threads": ["lm.parallel"],
    "vectors": ["models.vector_cache", "models.vectors"],
}


class _OldModule(ModuleType):
    """Reads and sets the names of the modules that replaced it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._home(name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            setattr(self._home(name), name, value)

    def __dir__(self) -> list[str]:
        return sorted({name for one in self._homes() for name in dir(one)})

    def _homes(self) -> list[ModuleType]:
        return [import_module(_PACKAGE + one) for one in _MOVED[self.__name__.removeprefix(_PACKAGE)]]

    def _home(self, name: str) -> ModuleType:
        """The module that defines a name, else one that has it."""
        found = [one for one in self._homes() if hasattr(one, name)]
        if not found:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        own = (one for one in found if getattr(vars(one)[name], "__module__", None) == one.__name__)
        return next(own, found[0])


class _OldPaths(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        ours = fullname.startswith(_PACKAGE) and is_moved(fullname.removeprefix(_PACKAGE))
        return ModuleSpec(fullname, self) if ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _OldModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        new = " and ".join(_PACKAGE + one for one in _MOVED[name.removeprefix(_PACKAGE)])
        warnings.warn(f"{name} has moved: import from {new}.", DeprecationWarning, stacklevel=2)


def is_moved(name: str) -> bool:
    """Whether a module of the first release has another place now."""
    return name in _MOVED


def install() -> None:
    """Make the old paths importable; a second call changes nothing."""
    if not any(isinstance(one, _OldPaths) for one in sys.meta_path):
        sys.meta_path.append(_OldPaths())
