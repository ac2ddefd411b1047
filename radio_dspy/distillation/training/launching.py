"""Train in processes that ``accelerate launch`` starts: DDP over several devices, or whatever its configuration says.

    accelerate launch ... -m radio_dspy.distillation.training.launching JOB

JOB is a folder that ``launch`` wrote: settings, groups and weights' names as JSON, vectors as safetensors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import RadioError
from radio_dspy.core.files import write_json
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.training.checkpoints import TrainingCheckpoints
from radio_dspy.distillation.training.reranker import TrainingResult, train_reranker
from radio_dspy.distillation.training.settings import LoraSettings, TrainingSettings
from radio_dspy.models.bi_encoder import PassageVectors
from radio_dspy.models.weights import RerankerWeights

_JOB, _VECTORS, _RESULT, _ERROR = "job.json", "vectors.safetensors", "result.json", "error.json"


def launch(
    weights: RerankerWeights,
    groups: Sequence[PreferenceGroup],
    output: Path,
    settings: TrainingSettings,
    *,
    passage_vectors: PassageVectors | None = None,
    watch: bool = False,
    checkpoints: TrainingCheckpoints | None = None,
) -> TrainingResult:
    """As ``train_reranker``, in the processes that ``settings.launcher`` says.

    Raises:
        RadioError: If training fails there.
    """
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as place:
        job = Path(place)
        how = {one.name: getattr(settings, one.name) for one in fields(settings) if one.name != "launcher"}
        described = {
            "weights": weights.dump_state(),
            "settings": {**how, "lora": asdict(settings.lora) if isinstance(settings.lora, LoraSettings) else None},
            "groups": [asdict(one) for one in groups],
            "output": str(output.absolute()),
            "watch": watch,
            "checkpoints": checkpoints.as_dict() if checkpoints else None,
        }
        write_json(job / _JOB, described)
        if passage_vectors is not None:
            save_file({"vectors": passage_vectors.tensor(_texts(groups))}, job / _VECTORS)
        module = ["-m", "radio_dspy.distillation.training.launching", place]
        command = [sys.executable, "-m", "accelerate.commands.launch", *settings.launcher, *module]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
        if (job / _ERROR).is_file():
            raise RadioError(json.loads((job / _ERROR).read_text(encoding="utf-8")))
        if done.returncode or not (job / _RESULT).is_file():
            raise RadioError(
                f"accelerate launch {' '.join(settings.launcher)} ended with {done.returncode}, and nothing was "
                "trained; what it wrote above says why."
            )
        found = json.loads((job / _RESULT).read_text(encoding="utf-8"))
    return TrainingResult(output if found.pop("trained") else None, tuple(found.pop("losses")), **found)


def _texts(groups: Sequence[PreferenceGroup]) -> list[str]:
    return list(dict.fromkeys(text for group in groups for text in group.texts))


def _of_rows(row: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {name: tuple(one) if isinstance(one, list) else one for name, one in row.items()}


def main(job: Path) -> None:
    """Train in each of the processes; the first says how it went."""
    from safetensors.torch import load_file

    given = json.loads((job / _JOB).read_text(encoding="utf-8"))
    groups = [PreferenceGroup(**_of_rows(row)) for row in given["groups"]]
    how = given["settings"]
    how["lora"] = LoraSettings(**_of_rows(how["lora"])) if how["lora"] else None
    settings = TrainingSettings(**_of_rows(how))
    weights = RerankerWeights(given["weights"]["checkpoint"], given["weights"]["architecture"])
    weights.load_state(given["weights"])
    vectors = None
    if (job / _VECTORS).is_file():
        vectors = PassageVectors(_texts(groups), load_file(job / _VECTORS)["vectors"].numpy())
    kept = given["checkpoints"]
    first = int(os.environ.get("RANK", "0")) == 0
    try:
        result = train_reranker(
            weights,
            groups,
            Path(given["output"]),
            settings,
            passage_vectors=vectors,
            watch=given["watch"],
            checkpoints=TrainingCheckpoints(Path(kept["folder"]), kept["key"], kept["every"]) if kept else None,
        )
    except RadioError as error:
        if first:
            write_json(job / _ERROR, str(error))
        raise SystemExit(1) from None
    if first:
        about = {**asdict(result), "trained": result.checkpoint is not None}
        write_json(job / _RESULT, {name: one for name, one in about.items() if name != "checkpoint"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
