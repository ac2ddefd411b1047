"""The settings that files in a folder of weights may hold: for each file its keys, and the values they may take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

MODULES = "modules.json"
SENTENCE_TRANSFORMERS = (
    r"sentence_transformers\.(?:models|(?:base|sentence_transformer|cross_encoder|multi_vector_encoder)\.modules)"
)
SENTENCE_SETTINGS = {
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
}
_WORDTOKENIZER = re.compile(
    rf"{SENTENCE_TRANSFORMERS}\.tokenizer(?:\.\w+)?\.(?:Whitespace|Phrase|Transformers)Tokenizer(?:Wrapper)?"
)
_ACTIVATION = re.compile(
    r"torch\.nn\.(?:modules\.(?:activation|linear)\.)?(?:CELU|ELU|GELU|GLU|Hardsigmoid|Hardswish|Hardtanh|Identity|"
    r"LeakyReLU|LogSigmoid|LogSoftmax|Mish|PReLU|RReLU|ReLU|ReLU6|SELU|SiLU|Sigmoid|Softmax|Softplus|Softsign|Tanh|"
    r"Tanhshrink)"
)
# Paths, addresses, "owner/name", transformers' "repository--file.Class" and import paths.
_NAMES_A_PLACE = re.compile(r"[/\\:]|--|\.[A-Za-z_]")
# What a model may say that it needs: an unmet need is told with the command that installs it.
_KNOWN_PACKAGES = re.compile(
    r"python|pytorch|torch(vision|audio|codec)?|(sentence-)?transformers|tokenizers|sentencepiece|tiktoken|safetensors|"
    r"accelerate|einops|flash-attn|huggingface[-_]hub|mistral-common|numpy|optimum|peft|pillow|protobuf|timm",
    re.I,
)
Rule = Callable[[Any], bool]


def anything(value: Any) -> bool:
    """Any value will do."""
    return True


def is_word(value: Any) -> bool:
    """A short text that names no place."""
    return isinstance(value, str) and len(value) <= 300 and not _NAMES_A_PLACE.search(value)


def _is_empty(value: Any) -> bool:
    return value in (None, False, "", [], {})


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _is_plain(value: Any) -> bool:
    """Numbers and words, however they are nested."""
    if isinstance(value, dict):
        return all(is_word(name) and _is_plain(inner) for name, inner in value.items())
    return all(map(_is_plain, value)) if isinstance(value, list) else _is_number(value) or is_word(value)


def is_activation(value: Any) -> bool:
    """Whether this is the import path of one of torch's activations, or nothing."""
    return value is None or (isinstance(value, str) and bool(_ACTIVATION.fullmatch(value)))


def _is_attention(value: Any) -> bool:
    """An implementation that is installed: others are fetched, from the hub's kernels."""
    known = {None, "eager", "sdpa", "flex_attention"}
    if find_spec("flash_attn"):
        known.add("flash_attention_2")
    if isinstance(value, dict):  # one for each part of a model
        return all(map(_is_attention, value.values()))
    return isinstance(value, str | None) and value in known


def _one_of(*words: Any) -> Rule:
    return lambda value: isinstance(value, str | bool | int | None) and value in words


def _only(**rules: Rule) -> Rule:
    """A dict of these keys alone."""
    return lambda value: (
        value is None
        or (isinstance(value, dict) and all(name in rules and rules[name](inner) for name, inner in value.items()))
    )


def _is_class_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(re.fullmatch(r"\w{1,100}", value)))


def _is_method(value: Any) -> bool:
    """A method that sentence-transformers may call on a model."""
    return isinstance(value, str) and bool(re.fullmatch(r"forward|get_[a-z]+_features", value))


def _is_file_name(value: Any) -> bool:
    """A file of the folder. Where an earlier one lay is often written down; transformers takes that of the folder."""
    known = r"(?:.*[/\\])?(?:(?:special_tokens_map|tokenizer)\.json|[0-9a-f]{64}(?:\.[0-9a-f]{64})?)|[\w-]+\.[\w.-]+"
    return value is None or (isinstance(value, str) and bool(re.fullmatch(known, value)))


def is_token(value: Any) -> bool:
    """A token, or several, each a text or a text with flags."""
    if isinstance(value, dict | list):
        return all(map(is_token, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, str | bool | int)


def _modalities(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_word(name) and _only(method=_is_method, method_output_name=_is_plain, format=is_word)(one)
        for name, one in value.items()
    )


def _is_text(value: Any) -> bool:
    """A text of any kind, or several by name: a prompt, a template."""
    if isinstance(value, dict | list):
        return all(map(_is_text, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, str)


def _is_label(value: Any) -> bool:
    return isinstance(value, dict | list) or value is None


_dtypes = _one_of(None, "auto", "float16", "float32", "bfloat16", "float64")
# Strings under these keys are names of places, where they are not None, and are never plain words.
PLACES = re.compile(
    r"(?:^|_)(?:backbone|dataset|dir|endpoint|folder|hub|path|repo|repo_id|uri|url|kernel|checkpoint|adapter)(?:_|$)",
    re.I,
)
_NEVER = {
    "adapter_kwargs": _is_empty,
    "allow_all_kernels": _is_empty,
    "auto_map": _is_empty,
    "backbone": _is_empty,
    "base_model_name_or_path": _is_empty,
    "custom_generate": _is_empty,
    "custom_pipelines": _is_empty,
    "gguf_file": _is_empty,
    "mecab_option": _is_empty,  # a command line
    "ignore_mismatched_sizes": _is_empty,
    "kernel_config": _is_empty,
    "offload_folder": _is_empty,
    "quantization_config": _is_empty,
    "trust_remote_code": _is_empty,
    "use_kernels": _is_empty,
    "use_pretrained_backbone": _is_empty,
    "use_timm_backbone": _is_empty,
}
_ATTENTION = dict.fromkeys(
    ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "attention_implementation"),
    _is_attention,
)
_EXPERTS = dict.fromkeys(
    ("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
    _one_of(None, "eager", "batched_mm", "grouped_mm"),
)
_ACTIVATIONS = dict.fromkeys(
    ("activation_fn", "activation_function_class", "sbert_ce_default_activation_function"), is_activation
)
_FREE = dict.fromkeys(
    (
        "_commit_hash",
        "_name_or_path",
        "finetuning_task",
        "name_or_path",
        "task_specific_params",
        "tokenizer_name",
        "transformers_version",
        "transformers.js_config",
        "unsloth_version",
        "version",
    ),
    anything,
)
_CONFIG: dict[str, Rule] = {
    "": _is_plain,
    **_NEVER,
    **_ATTENTION,
    **_EXPERTS,
    **_ACTIVATIONS,
    **_FREE,
    "activation_function": lambda value: is_activation(value) or is_word(value),  # a Dense module's, or BART's
    "architectures": lambda value: (
        value is None or (isinstance(value, list) and all(value) and all(map(_is_class_name, value)))
    ),
    "dtype": lambda value: _dtypes(value) or _is_plain(value),
    "model_type": lambda value: value is None or is_word(value),
    "lora_adaptations": _is_text,  # Jina's own, as is the next
    "task_instructions": _is_text,
    "stop_strings": _is_text,
    "id2label": _is_label,
    "label2id": _is_label,
    "title_sep": _is_text,  # RAG's own
    "doc_sep": _is_text,
    "tokenizer_class": lambda value: _is_class_name(value) or bool(_WORDTOKENIZER.fullmatch(str(value))),
    "torch_dtype": lambda value: is_word(value) or (isinstance(value, str) and value.startswith("torch.")) or not value,
    "vocab": _is_text,
    "skiplist_words": _is_text,
    "word_weights": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
}
TOKENIZER: dict[str, Rule] = {
    "": _is_plain,
    **_NEVER,
    **_FREE,
    "added_tokens_decoder": is_token,
    "chat_template": _is_text,
    "fast_tokenizer_files": _one_of(None),
    "processor_class": _is_class_name,
    "response_schema": anything,
    "response_template": anything,
    "tokenizer_class": _is_class_name,
    **dict.fromkeys(
        ("special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file", "spm_file"), _is_file_name
    ),
}
_MODEL_KWARGS = _only(
    **_ATTENTION,
    add_pooling_layer=_is_number,
    dtype=_dtypes,
    low_cpu_mem_usage=_is_number,
    torch_dtype=_dtypes,
    trust_remote_code=_is_empty,
    use_safetensors=_one_of(None, True),
)
_PROCESSOR_KWARGS = _only(
    add_bos_token=_is_number,
    add_eos_token=_is_number,
    do_lower_case=_is_number,
    fix_mistral_regex=_is_number,
    max_pixels=_is_number,
    min_pixels=_is_number,
    model_max_length=_is_number,
    padding_side=_one_of("left", "right"),
    truncation_side=_one_of("left", "right"),
    trust_remote_code=_is_empty,
    use_fast=_is_number,
)
_CONFIG_KWARGS = _only(
    attention_probs_dropout_prob=_is_number,
    attention_dropout=_is_number,
    classifier_dropout=_is_number,
    hidden_dropout_prob=_is_number,
    is_causal=_is_number,
    is_decoder=_is_number,
    num_labels=_is_number,
    trust_remote_code=_is_empty,
    use_bidirectional_attention=_is_number,
    use_cache=_is_number,
)
_SENTENCE: dict[str, Rule] = {
    "do_lower_case": _is_number,
    "document_length": _is_number,
    "max_seq_length": _is_number,
    "modality_config": _modalities,
    "module_output_name": is_word,
    "processing_kwargs": _is_plain,
    "query_expansion": _only(strategy=_one_of("fixed", "min"), attend=_is_number, length=_is_number, token=is_token),
    "query_length": _is_number,
    "tokenizer_name_or_path": _is_empty,
    "transformer_task": _one_of(
        "feature-extraction", "sequence-classification", "text-generation", "any-to-any", "fill-mask"
    ),
    "unpad_inputs": _is_number,
    **dict.fromkeys(("model_args", "model_kwargs"), _MODEL_KWARGS),
    **dict.fromkeys(("tokenizer_args", "processor_kwargs"), _PROCESSOR_KWARGS),
    **dict.fromkeys(("config_args", "config_kwargs"), _CONFIG_KWARGS),
}
# Of Stanford's ColBERT: sentence-transformers reads these, the others say how it was trained and where.
_METADATA: dict[str, Rule] = {
    "": _is_plain,
    **dict.fromkeys(
        (
            "checkpoint",
            "collection",
            "experiment",
            "index_name",
            "index_path",
            "index_root",
            "meta",
            "model_name",
            "name",
            "queries",
            "root",
            "triples",
        ),
        anything,
    ),
    **dict.fromkeys(("query_token_id", "doc_token_id"), is_token),
    **dict.fromkeys(("doc_maxlen", "query_maxlen", "attend_to_mask_tokens", "mask_punctuation"), _is_number),
}
SETTINGS: dict[str, Mapping[str, Rule]] = {
    "config.json": _CONFIG,
    "cnn_config.json": _CONFIG,
    "lstm_config.json": _CONFIG,
    "wordembedding_config.json": _CONFIG,
    "router_config.json": {
        "types": anything,  # read with the modules
        "structure": _is_plain,
        "parameters": lambda value: (
            isinstance(value, dict) and set(value) <= {"default_route", "allow_empty_key", "route_mappings"}
        ),
    },
    "config_sentence_transformers.json": {
        "": _is_plain,
        **_ACTIVATIONS,
        "__version__": anything,
        "prompts": _is_text,
        "keep_in_fp32_modules": anything,  # names of layers
        "default_prompt_name": _is_text,
        **dict.fromkeys(("query_prefix", "document_prefix", "skiplist_words"), _is_text),  # PyLate's
        "requirements": lambda value: (
            value is None or (isinstance(value, dict | list) and all(map(_KNOWN_PACKAGES.fullmatch, map(str, value))))
        ),
    },
    MODULES: {"idx": _is_number, "kwargs": _is_plain, "name": is_word, "path": _is_text, "type": _is_text},
    "artifact.metadata": _METADATA,
    "chat_template.json": {"chat_template": _is_text},
    "generation_config.json": _CONFIG,
    "special_tokens_map.json": TOKENIZER,
    "tokenizer_config.json": TOKENIZER,
    "preprocessor_config.json": TOKENIZER,
    "processor_config.json": TOKENIZER,
    "video_preprocessor_config.json": TOKENIZER,
    **dict.fromkeys(SENTENCE_SETTINGS, _SENTENCE),
}
