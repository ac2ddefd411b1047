"""Training in processes of Ray Train, which starts them again where one of them dies."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import MissingExtraError, RadioError
from radio_dspy.core.redaction import told

_STARTS_AGAIN = 5  # after so many deaths it is no machine that went, but something that will go wrong again


def train_on_ray(work: Callable[[Path], object], job: Path, processes: int, share: dict[str, float]) -> None:
    """Do a piece of work in each of several processes, which torch has made known to each other.

    Args:
        work: What each does with its copy of the job; importable.
        job: A folder: each process gets a copy of its files, and what the first one adds comes back.
        processes: How many.
        share: ``num_cpus`` and ``num_gpus`` of each.

    Raises:
        MissingExtraError: Without Ray Train.
        RadioError: If they cannot be started, or die again and again.
    """
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError:
        raise MissingExtraError("trainers= needs Ray Train: pip install 'radio-dspy[ray]'") from None
    needs = {"CPU": share["num_cpus"], **({"GPU": share["num_gpus"]} if share["num_gpus"] else {})}
    files = {one.name: one.read_bytes() for one in job.iterdir()}
    with tempfile.TemporaryDirectory() as place:  # Ray's own notes; checkpoints are ours, in the run folder
        each: Any = _in_each_process  # Ray's types know nothing of what it returns
        trainer: Any = TorchTrainer(
            each,
            train_loop_config={"work": work, "files": files},
            scaling_config=ScalingConfig(num_workers=processes, use_gpu="GPU" in needs, resources_per_worker=needs),
            run_config=RunConfig(storage_path=place, failure_config=FailureConfig(max_failures=_STARTS_AGAIN)),
        )
        try:
            made = trainer.fit().return_value or {}
        except Exception as error:  # Ray's classes for it differ between releases
            raise RadioError(f"Training on the cluster failed ({told(error)}); its log is in Ray's.") from None
    for name, data in made.items():
        (job / name).write_bytes(data)


def _in_each_process(given: dict[str, Any]) -> dict[str, bytes]:
    files: dict[str, bytes] = given["files"]
    with tempfile.TemporaryDirectory() as place:
        job = Path(place)
        for name, data in files.items():
            (job / name).write_bytes(data)
        given["work"](job)
        return {one.name: one.read_bytes() for one in job.iterdir() if one.name not in files}
