"""Train in processes that ``accelerate launch`` or an engine starts: DDP over several devices, or as configured there.

    accelerate launch ... -m radio_dspy.distillation.training.launching JOB

JOB is a folder that ``launch`` wrote: settings, groups and weights' names as JSON, vectors as safetensors.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import RadioError, SettingsError
from radio_dspy.core.files import write_json
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.distillation.training.checkpoints import TrainingCheckpoints
from radio_dspy.distillation.training.reranker import TrainingResult, train_reranker
from radio_dspy.distillation.training.settings import LoraSettings, TrainingSettings
from radio_dspy.models.bi_encoder import PassageVectors
from radio_dspy.models.weights import RerankerWeights

if TYPE_CHECKING:
    from radio_dspy.models.engine import Engine

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
    engine: Engine | None = None,
) -> TrainingResult:
    """As ``train_reranker``, in an engine's processes, or in those that ``settings.launcher`` says.

    Raises:
        SettingsError: If the output is there already, or other processes cannot be told these settings.
        RadioError: If training fails there.
    """
    from safetensors.torch import save_file

    settings.check_portable()
    if output.exists():
        raise SettingsError(f"{output}: already there; checkpoints are never overwritten.")
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
        if engine is not None:
            engine.train(main, job)
            ended, code = "The engine's processes ended", 0
        else:
            code = _accelerate(settings.launcher, place)
            ended = f"accelerate launch {' '.join(settings.launcher)} ended with {code}"
        if (job / _ERROR).is_file():
            raise RadioError(json.loads((job / _ERROR).read_text(encoding="utf-8")))
        if code or not (job / _RESULT).is_file():
            raise RadioError(f"{ended}, and nothing was trained; what it wrote above says why.")
        found = json.loads((job / _RESULT).read_text(encoding="utf-8"))
    return TrainingResult(output if found.pop("trained") else None, tuple(found.pop("losses")), **found)


def _accelerate(arguments: Sequence[str], job: str) -> int:
    """Work at the job under ``accelerate launch``; its exit code."""
    module = ["-m", "radio_dspy.distillation.training.launching", job]
    command = [sys.executable, "-m", "accelerate.commands.launch", *arguments, *module]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False).returncode


def _texts(groups: Sequence[PreferenceGroup]) -> list[str]:
    return list(dict.fromkeys(text for group in groups for text in group.texts))


def _of_rows(row: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {name: tuple(one) if isinstance(one, list) else one for name, one in row.items()}


def main(job: Path) -> bool:
    """Train in each of the processes; the first writes down how it went.

    Returns:
        Whether it went well.
    """
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
    output = Path(given["output"])
    try:
        if not output.parent.is_dir():
            raise SettingsError(
                f"{output.parent.parent}: is not there on {platform.node()}, which trains; give a run_dir on storage "
                "that all machines see under the same path."
            )
        shutil.rmtree(output, ignore_errors=True)  # of an attempt that died while it wrote
        result = train_reranker(
            weights,
            groups,
            output,
            settings,
            passage_vectors=vectors,
            watch=given["watch"],
            checkpoints=TrainingCheckpoints(Path(kept["folder"]), kept["key"], kept["every"]) if kept else None,
        )
    except RadioError as error:
        if first:
            write_json(job / _ERROR, str(error))
        return False
    if first:
        about = {**asdict(result), "trained": result.checkpoint is not None}
        write_json(job / _RESULT, {name: one for name, one in about.items() if name != "checkpoint"})
    return True


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1])))
