"""Open an encoder by its name or by an index's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import CheckpointError
from radio_dspy.models.encoder import Encoder, TextEncoder

# With one of these as its first part, a name given as a string is LiteLLM's; see ``as_encoder``.
# By hand: LiteLLM's own table of endpoints lacks a third of them.
EMBEDDING_PROVIDERS = (
    "azure",
    "azure_ai",
    "bedrock",
    "cohere",
    "dashscope",
    "databricks",
    "fireworks_ai",
    "gemini",
    "hosted_vllm",
    "huggingface",
    "infinity",
    "jina_ai",
    "litellm_proxy",
    "lm_studio",
    "mistral",
    "nebius",
    "nvidia_nim",
    "ollama",
    "openai",
    "openrouter",
    "sagemaker",
    "together_ai",
    "vertex_ai",
    "volcengine",
    "voyage",
    "watsonx",
    "xinference",
)


def as_encoder(
    encoder: TextEncoder | str, *, query_prefix: str | None = None, passage_prefix: str | None = None
) -> TextEncoder:
    """Accept an encoder, or open one by its name.

    A name whose first part is in ``EMBEDDING_PROVIDERS`` is LiteLLM's and gives a ``RemoteEncoder``, unless there is a
    folder of that name; every other name is a folder or a hub name. The hub has owners who are called like a provider:
    ``openai/clip-vit-base-patch32`` given as a string would be asked of OpenAI. ``Encoder("openai/...")`` is always the
    hub's, ``RemoteEncoder("openai/...")`` always the provider's.

    Args:
        encoder: An encoder, which is returned as it is, or a name.
        query_prefix: As for ``Encoder``; for a name only.
        passage_prefix: As for ``Encoder``; for a name only.

    Example:
        >>> as_encoder("all-MiniLM-L6-v2").window, as_encoder("ollama/nomic-embed-text")
        (256, RemoteEncoder('ollama/nomic-embed-text'))
    """
    if isinstance(encoder, TextEncoder):
        return encoder
    if encoder.partition("/")[0] in EMBEDDING_PROVIDERS and "/" in encoder and not Path(encoder).is_dir():
        from radio_dspy.models.remote_encoder import RemoteEncoder

        return RemoteEncoder(encoder, query_prefix=query_prefix, passage_prefix=passage_prefix)
    return Encoder(encoder, query_prefix=query_prefix, passage_prefix=passage_prefix)


def reopened_encoder(identity: Mapping[str, Any], query_settings: Mapping[str, Any]) -> TextEncoder:
    """The encoder that has this ``identity`` and these ``query_settings``; what decides vectors is not checked here.

    Raises:
        CheckpointError: If it was reached at an address of its own, which is never written down.
    """
    if identity.get("backend") != "litellm":
        return Encoder(
            identity["model"],
            query_prefix=query_settings["query_prefix"],
            passage_prefix=identity["passage_prefix"],
            max_length=identity["max_length"],
        )
    from radio_dspy.models.remote_encoder import RemoteEncoder

    name = identity["model"]
    if query_settings["own_address"]:
        raise CheckpointError(
            f"{name} was reached at an address of its own, which is never saved; give encoder=RemoteEncoder({name!r}, "
            "api_base=...)."
        )
    return RemoteEncoder(
        name,
        query_prefix=query_settings["query_prefix"],
        passage_prefix=identity["passage_prefix"],
        query_options=query_settings["query_options"],
        passage_options=identity["passage_options"],
        dimensions=identity["dimensions"],
    )
