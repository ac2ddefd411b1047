"""Encoders and LM calls on a Ray cluster, with results and budget of one process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy
from dspy import lm15

from radio_dspy.core.errors import MissingExtraError, RadioError, SettingsError
from radio_dspy.core.redaction import logger_of, told
from radio_dspy.engines.pace import Pace
from radio_dspy.engines.training import train_on_ray
from radio_dspy.engines.workers import EncoderWorker, LMWorker, environment_of, error_of
from radio_dspy.lm.adapters import LOCAL_PROVIDER
from radio_dspy.lm.elsewhere import Elsewhere, answered_by, serde
from radio_dspy.models.encoder import TextEncoder

if TYPE_CHECKING:
    from radio_dspy.models.encoder import Vectors

logger = logger_of(__name__)
_AHEAD = 2  # blocks of texts that each encoder has: one in work, one that waits
_PATIENCE = 30.0  # seconds for a first worker, before the log says what it waits for
_INLINE = 50_000  # bytes that Ray keeps with what it knows of a worker
_OBJECT_STORE = 200_000_000  # bytes, of a cluster that is started here: blocks pass through it, nothing stays


class RayEngine:
    """Runs what takes long on the workers of a Ray cluster: encoding texts, calling LMs and, if you ask, training.

    All else stays in your process: the store, prompts and replies, budget, records, groups and the gate. So a limit of
    calls or dollars holds for the whole cluster, a reply is on the disk before it counts, and the groups are byte for
    byte those of one process. A worker that dies is started elsewhere and given its work again; an LM call is made
    twice only where it was under way there. See docs/many-machines.md.

    Args:
        address: Of a running cluster: ``"auto"``, ``"ray://HOST:10001"``, ``"HOST:6379"``; None takes the one that this
            process is connected to or ``RAY_ADDRESS`` names, else starts one on this machine.
        encoders: Workers that hold an encoder.
        cpus_per_encoder: Cores of each; what Ray counts, not what torch takes.
        gpus_per_encoder: GPUs of each; 0.5 has two of them share one. None is one where the cluster has any.
        askers: Workers that call LMs.
        cpus_per_asker: Cores of each: they wait most of the time.
        calls_per_asker: Calls that each has in flight at most; ``RADIO(num_threads=)`` bounds them all.
        calls_per_minute: At which rate calls of LMs begin, in the whole cluster; None has no limit.
        trainers: Processes that train together, by Ray Train; ``run_dir`` must then lie where all machines see it. 0
            trains as ``TrainingSettings`` says: in your process, or by ``launcher=``.
        cpus_per_trainer: Cores of each.
        gpus_per_trainer: GPUs of each; None as above.

    Raises:
        MissingExtraError: Without Ray.
        SettingsError: For a number that is none.

    Example:
        >>> import radio_dspy as radio
        >>> engine = radio.RayEngine(encoders=4, gpus_per_encoder=1, calls_per_minute=3000)  # doctest: +SKIP
        >>> optimizer = radio.RADIO("openai/gpt-4o-mini", engine=engine, num_threads=64)  # doctest: +SKIP
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        encoders: int = 2,
        cpus_per_encoder: float = 1.0,
        gpus_per_encoder: float | None = None,
        askers: int = 2,
        cpus_per_asker: float = 0.1,
        calls_per_asker: int = 64,
        calls_per_minute: float | None = None,
        trainers: int = 0,
        cpus_per_trainer: float = 1.0,
        gpus_per_trainer: float | None = None,
    ) -> None:
        if min(encoders, askers, calls_per_asker) < 1 or (calls_per_minute is not None and not calls_per_minute > 0):
            raise SettingsError(
                f"encoders, askers and calls_per_asker must be at least 1, and calls_per_minute above 0, got "
                f"{encoders}, {askers}, {calls_per_asker} and {calls_per_minute}."
            )
        shares = (cpus_per_encoder, gpus_per_encoder or 0, cpus_per_asker, cpus_per_trainer, gpus_per_trainer or 0)
        if trainers < 0 or not min(shares) >= 0:
            raise SettingsError(
                f"trainers and shares of CPUs and GPUs must be at least 0, got {trainers} and "
                f"{', '.join(map(str, shares))}."
            )
        self.address = address
        self.trainers = trainers
        self._encoders, self._per_encoder = encoders, (cpus_per_encoder, gpus_per_encoder)
        self._per_trainer = (cpus_per_trainer, gpus_per_trainer)
        self._askers = (askers, {"num_cpus": cpus_per_asker, "max_concurrency": calls_per_asker})
        self._pace = Pace(calls_per_minute)
        self._pools: dict[str, _Pool] = {}
        self._started = False
        self._lock = threading.Lock()

    def encoder(self, encoder: TextEncoder) -> TextEncoder:
        """See ``Engine``; an encoder of this engine's stays as it is."""
        if isinstance(encoder, RayEncoder):
            return encoder
        return RayEncoder(encoder, self)

    def lm(self, lm: dspy.LM) -> dspy.LM:
        """See ``Engine``; a ``local_lm`` is asked from here, where its server is.

        Raises:
            SettingsError: If it is none of DSPy's own; a class of one's own stays in its process.
        """
        here = isinstance(getattr(lm, "engine", None), Elsewhere) or lm.model.startswith(LOCAL_PROVIDER)
        return lm if here else answered_by(_RayLM(lm, self))

    def train(self, work: Callable[[Path], object], job: Path) -> None:
        """See ``Engine``.

        Raises:
            RadioError: If the processes cannot be started, or die again and again.
        """
        with self._lock:
            self._connect()
        train_on_ray(work, job, self.trainers, _share(*self._per_trainer))

    def close(self) -> None:
        """Let the workers go, and a cluster that was started here."""
        import ray

        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        if self._started:
            ray.shutdown()
            self._started = False

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pace(self) -> None:
        """Wait until the next LM call may begin."""
        self._pace.wait()

    def encoder_pool(self, encoder: TextEncoder) -> _Pool:
        """The workers that hold an encoder."""
        key = json.dumps([encoder.identity, encoder.query_settings], sort_keys=True, default=str)
        each = self._per_encoder
        return self._pool(f"encoder {key}", lambda: _Pool(EncoderWorker, (encoder,), self._encoders, _share(*each)))

    def lm_pool(self, lm: dspy.LM) -> _Pool:
        """The workers that call an LM."""

        def made() -> _Pool:
            once = lm.copy(cache=False, num_retries=0, callbacks=[])
            return _Pool(LMWorker, (once, environment_of(lm)), *self._askers, owner=lm)

        return self._pool(f"lm {id(lm)}", made)

    def _pool(self, key: str, make: Callable[[], _Pool]) -> _Pool:
        with self._lock:
            if key not in self._pools:
                self._connect()
                self._pools[key] = make()
            return self._pools[key]

    def _connect(self) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtraError("RayEngine needs Ray: pip install 'radio-dspy[ray]'") from None
        if ray.is_initialized():
            return
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        own: dict[str, Any] = {}
        if address == "local":
            own = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:
            raise RadioError(
                f"No Ray cluster at {address!r} ({told(error)}); start one with `ray start --head`, or leave the "
                "address out."
            ) from None
        self._started = True


class _Pool:
    """Workers of one kind. Ray starts one again where it died, and gives it again what it was at."""

    def __init__(
        self, kind: type, held: tuple[Any, ...], size: int, options: dict[str, Any], *, owner: Any = None
    ) -> None:
        import ray

        self.owner = owner  # it is known by its place in memory, which must stay its own
        if len(ray.cloudpickle.dumps(held)) > _INLINE:
            held = tuple(ray.put(one) for one in held)
        self._held = held  # a worker that starts again reads them again
        lasting = {"max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "SPREAD"}
        remote: Any = ray.remote(kind).options(**lasting, **options)
        self.workers: list[Any] = [remote.remote(*held) for _ in range(size)]
        self._load: Counter[int] = Counter()
        self._lock = threading.Lock()
        ready, _ = ray.wait([one.ready.remote() for one in self.workers], timeout=_PATIENCE)
        if not ready:
            share = {name: options[name] for name in ("num_cpus", "num_gpus") if name in options}
            logger.warning(
                "No worker has started within %.0f seconds: the cluster has %s, of which %s are free, and each of %d "
                "workers needs %s. It waits for room.",
                _PATIENCE, _counted(ray.cluster_resources()), _counted(ray.available_resources()), size, share,
            )  # fmt: skip

    @contextlib.contextmanager
    def least_busy(self) -> Iterator[Any]:
        """The worker with the least to do, for the length of the block."""
        number = self.take()
        try:
            yield self.workers[number]
        finally:
            self.give_back(number)

    def take(self) -> int:
        """The number of the worker with the least to do, which has one thing more from now on."""
        with self._lock:
            number = min(range(len(self.workers)), key=lambda one: self._load[one])
            self._load[number] += 1
            return number

    def give_back(self, number: int) -> None:
        """A worker has one thing less to do."""
        with self._lock:
            self._load[number] -= 1

    def close(self) -> None:
        """End the workers."""
        import ray

        for one in self.workers:
            ray.kill(one)


class RayEncoder(TextEncoder):
    """An encoder whose blocks the workers of a cluster encode; no more of them travel than the workers can hold."""

    def __init__(self, encoder: TextEncoder, engine: RayEngine) -> None:
        self._inner, self._engine = encoder, engine
        self.name, self.max_length = encoder.name, encoder.max_length
        self.query_prefix, self.passage_prefix = encoder.query_prefix, encoder.passage_prefix

    @property
    def identity(self) -> dict[str, Any]:
        """See ``TextEncoder``."""
        return self._inner.identity

    @property
    def query_settings(self) -> dict[str, Any]:
        """See ``TextEncoder``."""
        return self._inner.query_settings

    @property
    def window(self) -> int | None:
        """See ``TextEncoder``."""
        return self._inner.window

    def count_tokens(self, text: str) -> int:
        """See ``TextEncoder``."""
        return self._inner.count_tokens(text)

    def _blocks(self, blocks: Iterable[tuple[int, Sequence[str]]], *, query: bool) -> Iterator[tuple[int, Vectors]]:
        """The vectors of each block and where it begins, in the order in which they come."""
        import ray

        pool = self._engine.encoder_pool(self._inner)
        under_way: dict[Any, tuple[int, int]] = {}

        def next_one() -> tuple[int, Vectors]:
            (done,), _ = ray.wait(list(under_way), num_returns=1)
            start, number = under_way.pop(done)
            pool.give_back(number)
            return start, _got(done)

        for start, block in blocks:
            if len(under_way) == _AHEAD * len(pool.workers):
                yield next_one()
            number = pool.take()
            under_way[pool.workers[number].encode.remote(list(block), query)] = (start, number)
        while under_way:
            yield next_one()

    def _encode(self, texts: list[str], *, query: bool, show_progress: bool) -> Vectors:
        if not texts:
            return self._inner._encode(texts, query=query, show_progress=False)
        return next(vectors for _, vectors in self._blocks([(0, texts)], query=query))


class _RayLM(Elsewhere):
    """Has the workers of a cluster answer an LM's requests."""

    def __init__(self, lm: dspy.LM, engine: RayEngine) -> None:
        super().__init__(lm)
        self._engine = engine

    def complete(self, request: lm15.Request) -> lm15.Response:
        """One call, by the worker that has the fewest in flight."""
        pool = self._engine.lm_pool(self.lm)
        self._engine.pace()
        with pool.least_busy() as worker:
            found = _got(worker.ask.remote(serde.request_to_dict(request)))
        if "failure" in found:
            raise error_of(found["failure"])
        return serde.response_from_dict(found["response"])


def _got(reference: Any) -> Any:
    """What a worker gave.

    Raises:
        RadioError: The worker's own, or one that says what failed there.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, RadioError):
            raise cause from None
        raise RadioError(f"A worker of the cluster failed ({told(cause or error)}); its log is in Ray's.") from None


def _share(cpus: float, gpus: float | None) -> dict[str, float]:
    """What a worker takes of its machine, by the names of actors' options."""
    import ray

    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    return {"num_cpus": cpus, "num_gpus": gpus}


def _counted(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
