"""RADIO with every setting by its own name, whichever object it belongs to, and without progress bars."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from radio_dspy import RADIO, Budget, PreferenceSettings, RationaleSettings, TrainingSettings

_PARTS = {
    "preferences": PreferenceSettings, "training": TrainingSettings, "rationales": RationaleSettings, "budget": Budget,
}  # fmt: skip
_OWN = ("loss", "seed", "learning_rate", "max_length")  # arguments of RADIO itself


def radio_of(*arguments: Any, **given: Any) -> RADIO:
    """``radio_of(lm, candidates=8)`` is ``RADIO(lm, preferences=PreferenceSettings(candidates=8))``."""
    given.setdefault("disable_tqdm", True)
    given.setdefault("num_threads", 1)  # records in the questions' order
    if not arguments:
        given.setdefault("rationale_lm", False)  # no LM, also where a test's program has one
    for name, kind in _PARTS.items():
        own = {one.name: given.pop(one.name) for one in fields(kind) if one.name in given and one.name not in _OWN}
        if own and isinstance(given.get(name), kind):
            given[name] = replace(given[name], **own)
        elif own:
            texts = {"given": given[name]} if name in given else {}
            given[name] = kind(**own, **texts)
    return RADIO(*arguments, **given)


@contextmanager
def tracked(uri: str) -> Iterator[Any]:
    """MLflow on a store of its own; afterwards neither a store nor an experiment is set in the process."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
