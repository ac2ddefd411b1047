"""Record in the trained weights how they were trained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from radio_dspy._version import __version__
from radio_dspy.distillation.candidates.reranker_slots import Slot
from radio_dspy.distillation.preferences.settings import PreferenceSettings
from radio_dspy.distillation.rationales.settings import RationaleSettings
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.reporting.report import NO_GATE, Report

_FOLDERS = re.compile(r"(?:^|(?<=/))(?:[/~.]|[A-Za-z]:[\\/]).*[\\/]")


def remember(slots: Sequence[Slot], report: Report, how: Mapping[str, Any]) -> None:
    """Add a record to the weights of every reranker whose trained weights were taken; others stay as they were.

    A record holds JSON types alone, and no path, address or key: it is saved, and published, with the program.

    Args:
        slots: The rerankers, in the report's order.
        report: What happened.
        how: ``teacher`` (empty where the groups were given), ``encoder``, ``rationale_lm`` and ``settings``.
    """
    for slot, part in zip(slots, report.rerankers, strict=True):
        gate = part.gate or {"chosen": "trained", "sentence": NO_GATE}
        if gate["chosen"] == "base":
            continue
        record = {
            "release": __version__,
            "base": {"name": part.training["base"], "fingerprint": part.training["base_fingerprint"]},
            **how,
            "questions": {name: report.questions[name] for name in ("train", "used", "judged")},
            "groups": part.groups,
            "updates": part.training["updates"],
            "gated": part.gate is not None,
            "chosen": gate["chosen"],
            "decision": gate["sentence"],
            "relevance": report.relevance,
            "metrics": report.metrics if slot is slots[0] else {},  # the report's rows are the first reranker's
        }
        if report.calibration is not None and slot is slots[0]:
            record["calibration"] = {key: one for key, one in report.calibration.items() if key != "cutoffs"}
        slot.assign(slot.weights.with_training(json.loads(json.dumps(record))))


def settings_of(
    preferences: PreferenceSettings, training: TrainingSettings, rationales: RationaleSettings, rounds: int = 1
) -> dict[str, Any]:
    """The settings that decide the result, in JSON types; an object of the user's own by its name."""
    found = preferences.decisive()
    if not rationales.check:
        found["guards"] = {"rationales": False, **found["guards"]} if preferences.false_negatives else False
    if rounds > 1:
        found["rounds"] = rounds
    return {**training_settings(training), **_by_names(found)}


def training_settings(settings: TrainingSettings) -> dict[str, Any]:
    """The part of them that every optimizer has."""
    return _by_names(settings.decisive())


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
