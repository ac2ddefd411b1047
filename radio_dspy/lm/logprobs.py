"""Log-probabilities of a continuation, from local and hosted LMs."""

from __future__ import annotations

import math
from typing import Any

import dspy
from dspy import lm15

from radio_dspy.core.errors import (
    DataError,
    LanguageModelError,
    RadioError,
    SettingsError,
)
from radio_dspy.core.validation import shown
from radio_dspy.lm.local import _address, _post


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
        LanguageModelError: If what the server reports cannot be read.
        DataError: If the reply is empty, or llama.cpp has no log-probability for one of its tokens.
        dspy.LMError: If the LM cannot be reached or refuses.

    Example:
        >>> from radio_dspy import local_lm
        >>> with local_lm() as lm:
        ...     right = continuation_logprobs(lm, "What is the capital of France?", "Paris")
        ...     wrong = continuation_logprobs(lm, "What is the capital of France?", "Rome")
        >>> sum(right) / len(right) > sum(wrong) / len(wrong)
        True
    """
    if not continuation.strip():
        raise DataError("An empty reply has no tokens and no probability; give a text.")
    url = _address(lm.model)
    try:
        found = (
            _prompt_logprobs(lm, prompt, continuation)
            if url is None
            else _forced_logprobs(lm, url, prompt, continuation)
        )
    except RadioError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise LanguageModelError(
            f"{lm.model}: what the server reports as log-probabilities cannot be read ({type(error).__name__}: "
            f"{error}); ask another server."
        ) from error
    if not found or not all(map(math.isfinite, found)):
        raise LanguageModelError(
            f"{lm.model}: the server reports {shown(found)} as log-probabilities; ask another one."
        )
    return found


def _forced_logprobs(lm: dspy.LM, url: str, prompt: str, continuation: str) -> list[float]:
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
