"""What MLflow's autologging keeps of a compile, where ``mlflow.dspy.autolog(log_compiles=True)`` is on."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from radio_dspy.core.redaction import logger_of, redacted, redacted_value, told
from radio_dspy.reporting.report import Report

logger = logger_of(__name__)
Optimizer = TypeVar("Optimizer", bound=type)
_FLAVOR = "dspy"
_LONGEST = 500  # characters of a parameter, as many as MLflow's own stores take
_FILES = ("report.html", "report.json", "summary.json")
_METRIC = re.compile(r"[^\w./ -]")  # signs that MLflow's names of metrics cannot have


def known_to_mlflow(optimizer: Optimizer) -> Optimizer:
    """Have autologging know an optimizer that is defined after it was turned on: it knows those from before alone."""
    # Nothing is imported: where MLflow was not, autologging is off.
    autolog, utils = sys.modules.get("mlflow.dspy.autolog"), sys.modules.get("mlflow.utils.autologging_utils")
    if autolog is not None and utils is not None:
        with contextlib.suppress(AttributeError):  # another release may name its parts otherwise
            if not utils.autologging_is_disabled(_FLAVOR):
                runs = utils.get_autologging_config(_FLAVOR, "log_compiles")
                utils.safe_patch(_FLAVOR, optimizer, "compile", autolog._patched_compile, manage_run=runs)
    return optimizer


def log_compile(report: Report, how: Mapping[str, Any], folder: Path) -> None:
    """Keep settings, metrics, the gate's row and the report's page in the run that autologging has begun.

    Args:
        report: What happened.
        how: Teacher and settings.
        folder: Where the report's files are.
    """
    utils = sys.modules.get("mlflow.utils.autologging_utils")
    if utils is None or utils.autologging_is_disabled(_FLAVOR):
        return
    import mlflow

    if not utils.get_autologging_config(_FLAVOR, "log_compiles", False) or mlflow.active_run() is None:
        return
    try:
        mlflow.log_params({name: redacted(str(value))[:_LONGEST] for name, value in _flat(how, "")})
        mlflow.log_metrics(
            {
                _METRIC.sub("_at_" if "@" in metric else "_", f"{row}.{metric}"): value
                for row, values in report.metrics.items()
                for metric, value in values.items()
                if math.isfinite(value)
            }
        )
        mlflow.log_dict(redacted_value({one.reranker: one.gate for one in report.rerankers}), "gate.json")
        for path in filter(Path.exists, (folder / name for name in _FILES)):
            mlflow.log_artifact(str(path))
    except mlflow.MlflowException as error:  # a store that is full takes nothing of the compile away
        logger.warning("MLflow did not keep the compile's report (%s).", told(error))


def _flat(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + _METRIC.sub("_", name), value
