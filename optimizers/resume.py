"""Resume a run: detect changed settings, and keep the scores that were paid for."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dspy
from radio_dspy.optimizers.provenance import model_name, settings_of

from radio_dspy.core.redaction import logger_of
from radio_dspy.datasets.examples import answer_texts, relevant_of
from radio_dspy.distillation.rationales.settings import PAPER_WEIGHT
from radio_dspy.lm.calls import call_key
from radio_dspy.retrievers.requests import question_id
from radio_dspy.runs.identity import hash_of, program_key, retriever_identity
from radio_dspy.runs.run import STAGES, Run

if TYPE_CHECKING:
    from radio_dspy.optimizers.job import Job, Settings

logger = logger_of(__name__)

# The first stage that a setting decides; one that is not named decides how the reranker is trained.
_FIRST_STAGE = {
    **dict.fromkeys(("program", "program_lm", "retriever", "trainset", "held_out", "candidates"), "requests"),
    **dict.fromkeys(("rationale_lm", "rationales", "extractor", "guards"), "rationales"),
    **dict.fromkeys(("encoder", "signals", "rationale_weight", "rounds"), "signals"),
    **dict.fromkeys(("sampling", "depth", "hard_negatives", "random_negatives", "confident_share", "seed"), "groups"),
    **dict.fromkeys(("groups", "negatives", "null_passage", "min_agreement"), "groups"),
    **dict.fromkeys(("gate", "metric"), "gate"),
}


@contextlib.contextmanager
def taken_up(run: Run, described: Mapping[str, Any], kind: str = "RADIO") -> Iterator[None]:
    """Be the run folder's one writer, and say which settings are not those of the last time and what that costs.

    Args:
        run: The folder.
        described: What decides the result, in JSON types.
        kind: The optimizer: the folder of another one is refused.
    """
    with run.exclusive(kind):
        changed = run.begin(described)
        if changed:
            run.log("changed", settings={name: list(pair) for name, pair in changed.items()})
            logger.warning(changes(changed, run))
        yield


def changes(changed: Mapping[str, Sequence[Any]], run: Run) -> str:
    """The changed settings, and the stage from which the run is done again, in a few lines."""
    first = min((_FIRST_STAGE.get(name, "training") for name in changed), key=STAGES.index)
    again = STAGES[STAGES.index(first) :]
    kept = STAGES[: STAGES.index(first)]
    lines = [f"{name}: {_short(old)} -> {_short(new)}" for name, (old, new) in changed.items()]
    return (
        f"{run.path} was made with other settings.\n  "
        + "\n  ".join(lines)
        + f"\nDone again: {', '.join(again)}; records that still fit are used."
        + (f" Kept as they are: {', '.join(kept)}." if kept else "")
        + " To keep the earlier result, stop here and take another run_dir."
    )


def described(optimizer: Settings, job: Job) -> dict[str, Any]:
    """Everything that decides a compile's result: settings, identities, hashes of the data; no path and no key."""
    lm, program_lm = optimizer.rationale_lm, dspy.settings.lm
    gate, metric, extractor = optimizer.gate, optimizer.metric, optimizer.rationales.open_extractor()
    return {
        "program": program_key(job.program),
        "program_lm": _lm(program_lm),
        "retriever": retriever_identity(job.first_stage) if job.first_stage is not None else None,
        "trainset": data_hash(job.train),
        "held_out": data_hash(job.held_out),
        "rationale_lm": _lm(lm),
        "rationales": hash_of(sorted(given.items())) if (given := optimizer.rationales.given) else None,
        "extractor": hash_of(
            [type(extractor).__qualname__, extractor.dump_state(), *([extractor.n] if extractor.n > 1 else [])]
        ),
        "encoder": {**job.encoder.identity, **job.encoder.query_settings},
        "signals": {one.name: float(weight) for one, weight in (optimizer.signals or {}).items()} or None,
        "rationale_weight": PAPER_WEIGHT if optimizer.rationales.weight is None else optimizer.rationales.weight,
        **settings_of(optimizer.preferences, optimizer.training, optimizer.rationales, optimizer.rounds),
        "device": optimizer.training.device,
        "base": {slot.name: [slot.weights.base, slot.weights.fingerprint] for slot in job.slots},
        "gate": asdict(gate) if gate else None,
        "metric": getattr(metric, "__name__", type(metric).__name__) if metric else None,
    }


def data_hash(examples: Iterable[dspy.Example]) -> str:
    """A hash of questions: ids, texts, answers and labels, in their order."""
    digest = hashlib.sha256()
    for one in examples:
        row = [question_id(one), one.get("question"), answer_texts(one), sorted(relevant_of(one))]
        digest.update(json.dumps(row).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]


def _lm(lm: Any) -> list[str | None] | None:
    """An LM by its name, and a hash of the settings that it samples by."""
    return None if lm is None else [model_name(lm), call_key(lm, getattr(lm, "kwargs", {}), [])[:8]]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
