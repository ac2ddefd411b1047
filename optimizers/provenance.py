"""What an optimizer writes into the weights that it trained, so that a saved program can tell how they came to be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from radio_dspy import __version__
from radio_dspy.distillation.seats import Seat
from radio_dspy.distillation.settings import TrainingSettings
from radio_dspy.distillation.signals import Signal
from radio_dspy.model_files import weights_name
from radio_dspy.report import NO_GATE, Report

if TYPE_CHECKING:
    from radio_dspy.optimizers.job import Job
    from radio_dspy.optimizers.radio import RADIO

_FOLDERS = re.compile(r"(?:^|(?<=/))(?:[/~.]|[A-Za-z]:[\\/]).*[\\/]")


def remember_training(optimizer: RADIO, job: Job, report: Report, teacher: Mapping[Signal, float]) -> None:
    """Add a record of what RADIO did to the weights that it trained; see ``remember``."""
    how = {
        "teacher": {signal.name: float(weight) for signal, weight in teacher.items()},
        "encoder": weights_name(job.encoder.name),
        "rationale_lm": model_name(optimizer.rationale_lm),
        "settings": settings_of(optimizer),
    }
    remember(job.seats, report, how)


def remember(seats: Sequence[Seat], report: Report, how: Mapping[str, Any]) -> None:
    """Add a record to the weights of every reranker whose trained weights were taken; others stay as they were.

    A record holds JSON types alone, and no path, address or key: it is saved, and published, with the program.

    Args:
        seats: The rerankers, in the report's order.
        report: What happened.
        how: ``teacher`` (empty where the groups were given), ``encoder``, ``rationale_lm`` and ``settings``.
    """
    for seat, part in zip(seats, [report.as_dict(), *report.others], strict=True):
        gate = part["gate"] or {"chosen": "trained", "sentence": NO_GATE}
        if gate["chosen"] == "base":
            continue
        record = {
            "release": __version__,
            "base": {"name": part["training"]["base"], "fingerprint": part["training"]["base_fingerprint"]},
            **how,
            "questions": {name: report.questions[name] for name in ("train", "used", "judged")},
            "groups": part["groups"],
            "updates": part["training"]["updates"],
            "gated": part["gate"] is not None,
            "chosen": gate["chosen"],
            "decision": gate["sentence"],
            "relevance": report.relevance,
            "metrics": report.metrics if seat is seats[0] else {},  # the report's rows are the first reranker's
        }
        seat.weights.training = (*seat.weights.training, json.loads(json.dumps(record)))


def settings_of(optimizer: RADIO) -> dict[str, Any]:
    """The settings that decide the result, in JSON types; an object of the user's own is told by its name."""
    grouping = {one.name: getattr(optimizer.grouping, one.name) for one in fields(optimizer.grouping)}
    guard = asdict(grouping.pop("guard"))
    found = {**grouping, "guards": guard if optimizer.guards else False}
    return {"candidates": optimizer.candidates, **training_settings(optimizer.training), **_by_names(found)}


def training_settings(settings: TrainingSettings) -> dict[str, Any]:
    """The part of them that every optimizer has."""
    found = {one.name: getattr(settings, one.name) for one in fields(settings) if one.name != "device"}
    return _by_names({**found, "lora": asdict(settings.lora) if settings.lora else None})


def model_name(lm: Any) -> str | None:
    """An LM's model name; of a model that is named by its file, the file's name alone.

    Example:
        >>> from dspy import LM
        >>> model_name(LM("openai/gpt-4o-mini")), model_name(LM("hosted_vllm//srv/models/llama")), model_name(None)
        ('openai/gpt-4o-mini', 'hosted_vllm/llama', None)
    """
    return None if lm is None else _FOLDERS.sub("", str(getattr(lm, "model", type(lm).__name__)))


def _by_names(found: Mapping[str, Any]) -> dict[str, Any]:
    names = {key: getattr(value, "__name__", type(value).__name__) for key, value in found.items() if callable(value)}
    return {**found, **names}
