"""Check a loaded model: tokenizer, padding, positions, outputs."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from radio_dspy.core.errors import CheckpointError, RadioError, SettingsError
from radio_dspy.core.redaction import logger_of
from radio_dspy.models.architecture import HEAD, HEAD_TENSORS
from radio_dspy.models.settings_rules import read_settings
from radio_dspy.models.weights_folder import panics_as_errors

logger = logger_of(__name__)
UNLIMITED = 10**9  # tokenizers without a limit name 1e30
_POSITIONS = re.compile(r"(^|\.)(position_embeddings?|wpe|embed_positions|positions_embed)$")
_DENIAL = re.compile(r"(not?|non|false|negative)([\W_]|$)|ir?relevant|unrelated", re.IGNORECASE)
_GENERATING = ("text-generation", "any-to-any")  # read at the last place, which must be the text's own


def outputs_of(folder: Path) -> int | None:
    """How many scores the head of a cross-encoder gives; None where it has no head.

    Raises:
        CheckpointError: If they are more than two.
    """
    path = folder / "config.json"
    config = read_settings(path) if path.is_file() else {}
    named = config.get("architectures")
    if named and not any(str(one).endswith(HEAD) for one in named):
        return None
    labels = config.get("id2label")
    count = (len(labels) if isinstance(labels, dict) else config.get("num_labels")) if named else None
    for one in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(SafetensorError, OSError), safe_open(one, "pt") as tensors:
            head = next((key for key in tensors.keys() if HEAD_TENSORS.search(key)), None)  # noqa: SIM118
            count = tensors.get_slice(head).get_shape()[0] if head else count
    if not isinstance(count, int):
        return None
    if count > 2:
        raise CheckpointError(
            f"{folder}: has {count} outputs, and a reranker gives one score, or two of which the second is relevant. "
            "Give weights that were trained to rerank."
        )
    return count


def join_outputs(model: Any, name: str) -> None:
    """Turn a head of two outputs, not relevant and relevant, into one: the second minus the first.

    Where the settings say that the second is the one that denies, as in QNLI's ``not_entailment``, the other way round.

    Raises:
        CheckpointError: If the head is of a kind that is not known here, or has more outputs.
    """
    heads: list[tuple[Any, str, Any]]
    dense = next((one for one in reversed(list(model)) if isinstance(one, Dense)), None)
    if dense is not None and dense.module_output_name == "scores":
        count, heads = dense.out_features, [(dense, "linear", dense.linear)]
        if not isinstance(dense.activation_function, torch.nn.Identity) or dense.use_residual:
            heads = []
    elif isinstance(model[0], Transformer) and model[0].transformer_task == "sequence-classification":
        owner = model[0].model
        count = owner.config.num_labels
        heads = [
            (parent, key, child)
            for parent in owner.modules()
            if parent is not owner.base_model
            for key, child in parent.named_children()
            if isinstance(child, torch.nn.Linear) and child.out_features == count
        ][-1:]
    else:
        return
    if count == 1:
        return
    labels = getattr(getattr(model[0], "config", None), "id2label", None) or {}
    first, second = (bool(_DENIAL.match(str(labels.get(place, "")))) for place in (0, 1))
    sign = -1 if second and not first else 1
    if count != 2 or not heads:
        raise CheckpointError(
            f"{name}: has {count} outputs, and a reranker gives one score, or two of which the second is relevant. "
            "Give weights that were trained to rerank."
        )
    parent, key, linear = heads[0]
    joined = torch.nn.Linear(linear.in_features, 1, bias=linear.bias is not None)
    with torch.no_grad():
        joined.weight.copy_((linear.weight[1:] - linear.weight[:1]) * sign)
        if linear.bias is not None:
            joined.bias.copy_((linear.bias[1:] - linear.bias[:1]) * sign)
    setattr(parent, key, joined.to(linear.weight))
    if isinstance(parent, Dense):
        parent.out_features = 1
    else:
        model[0].model.config.num_labels = model[0].model.num_labels = 1


def prepare_model(model: Any, name: str, max_length: int | None, *, pairs: bool = False) -> None:
    """See that a loaded model can read what it will be given, and bound its inputs to the positions that it has.

    Args:
        model: A ``SentenceTransformer`` or ``CrossEncoder``.
        name: The weights, for errors and the log.
        max_length: Longest input in tokens, where it was set.
        pairs: Whether it reads a query and a passage at once.

    Raises:
        CheckpointError: If the tokenizer is missing, does not fit the weights, or has no token to pad with, or if the
            bound leaves no room for a word, or of pairs for two.
    """
    if (cut := getattr(model, "truncate_dim", None)) is not None and cut < 1:
        raise CheckpointError(f"{name}: cannot be loaded: truncate_dim is {cut}, which leaves no dimension.")
    for one in model.modules():
        if isinstance(one, StaticEmbedding):
            _check_vocabulary(name, one.tokenizer.get_vocab_size(), 0, int(one.embedding.num_embeddings))
        elif isinstance(one, Transformer):
            _check_tokenizer(one, name)
            limit = position_limit(one.model)
            wanted = one.max_seq_length if max_length is None else max_length
            decoder = hasattr(one.model.config, "num_key_value_heads")
            if (limit is not None or not decoder) and one.transformer_task not in _GENERATING:
                # Padding before a text would move its learned positions, and be read in place of its first token.
                one.tokenizer.padding_side = "right"
            room = 0 if wanted is None else wanted - one.tokenizer.num_special_tokens_to_add(pair=pairs)
            if wanted is not None and room < 1 + pairs:
                raise CheckpointError(
                    f"{name}: cannot be loaded: with max_length={wanted} it would read no word"
                    f"{' of each text' if pairs else ''}; mend model_max_length in its tokenizer_config.json, or set "
                    "max_length."
                )
            if limit is not None and (wanted is None or wanted > limit):
                if max_length is not None:
                    _log_shortened(name, max_length, limit)
                wanted = limit
            one.max_seq_length = wanted
            for side in ("query_length", "document_length"):  # of a late-interaction model
                if wanted is not None and (own := getattr(one, side)) is not None:
                    setattr(one, side, min(own, wanted))


@contextlib.contextmanager
def own_errors(name: str, precision: str = "fp32", backend: str = "torch", *, loading: bool = True) -> Iterator[None]:
    """Turn what a library raises about a model that cannot be used into an error that names its weights."""
    try:
        with panics_as_errors():
            yield
    except (RadioError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries raise all kinds, tokenizers Exception itself
        if (precision, backend) != ("fp32", "torch"):
            told = {"precision": precision} if backend == "torch" else {"backend": backend, "precision": precision}
            plainer = "precision='fp32'" if backend == "torch" else "backend='torch'"
            raise SettingsError(
                f"{name}: does not run with {', '.join(f'{key}={one!r}' for key, one in told.items())} "
                f"({error!r:.300}); score it with {plainer}."
            ) from error
        what, why = (
            ("loaded: it fails with two short texts", "Its settings, tokenizer and weights may not belong together.")
            if loading
            else (
                "used",
                "It reads short texts: one of these may hold no token, or a special one, that it cannot read.",
            )
        )
        raise CheckpointError(f"{name}: cannot be {what} ({error!r:.300}). {why}") from error


def try_model(
    read: Callable[[list[Any]], Any], *, pairs: bool = False, zeros: bool = False, dimension: int | None = None
) -> None:
    """Let a model read two texts of different length, before it is relied on.

    Args:
        read: Gives scores of pairs or vectors of texts.
        pairs: Whether it takes pairs.
        zeros: Whether a vector may be zero, as that of words which a static model does not know.
        dimension: Of its vectors, as its settings say; None does not look.

    Raises:
        ValueError: If it gives what is no finite number, or vectors of no length or of another dimension.
    """
    found = read([["a", "b"], ["a", "a longer text"]] if pairs else ["a", "a longer text"])
    if not np.isfinite(found).all():
        raise ValueError("it gives what is no finite number, as damaged weights do")
    if dimension not in (None, found.shape[-1]):
        raise ValueError(f"it gives vectors of {found.shape[-1]} dimensions, where its settings say {dimension}")
    if not pairs and not zeros and not found.any(axis=1).all():
        raise ValueError("it gives vectors that are zero")


@functools.cache
def _log_shortened(name: str, wanted: int, limit: int) -> None:
    logger.warning("%s: has positions for %d tokens; max_length=%d is taken as %d.", name, limit, wanted, limit)


def window_of(model: Any) -> int | None:
    """How many tokens of a text a model reads; None has no limit."""
    limit = model.max_seq_length
    return None if limit is None or limit >= UNLIMITED else int(limit)


def token_count(model: Any, text: str) -> int:
    """Length of a text in a model's tokens, special ones among them."""
    tokenizer = model.tokenizer
    if callable(tokenizer):
        return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
    if hasattr(tokenizer, "encode"):  # a static model's, which is not of transformers
        return len(tokenizer.encode(text, add_special_tokens=False).ids)
    return len(tokenizer.tokenize(text))


def position_limit(model: torch.nn.Module) -> int | None:
    """For how many tokens a model has learned positions; None where it computes them."""
    found = []
    for name, one in model.named_modules():
        if isinstance(one, torch.nn.Embedding) and _POSITIONS.search(name) and "vision" not in name:
            first = getattr(one, "offset", None)  # RoBERTa and its kin do not begin at 0
            if not isinstance(first, int):
                first = 0 if one.padding_idx is None else one.padding_idx + 1
            found.append(one.num_embeddings - first)
    declared = getattr(model.config, "max_position_embeddings", None)
    if found and isinstance(declared, int) and declared > 0:
        found.append(declared)
    return min(found, default=None)


def _check_tokenizer(transformer: Transformer, name: str) -> None:
    tokenizer, config = transformer.tokenizer, transformer.model.config.get_text_config()
    if not hasattr(config, "pad_token_id"):  # a part of the settings that is none
        config = transformer.model.config
    if tokenizer is None:
        raise CheckpointError(f"{name}: cannot be loaded: holds no tokenizer for texts; copy its files, too.")
    try:
        embeddings: Any = transformer.model.get_input_embeddings()
        rows = int(embeddings.weight.shape[0])
    except NotImplementedError:  # CANINE has none: it hashes characters
        rows = UNLIMITED
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:  # an end token pads as well: it is masked
        if tokenizer.eos_token is None:
            raise CheckpointError(
                f"{name}: cannot be loaded: its tokenizer has neither a pad token nor an end token that the weights "
                "know, so texts of different length cannot be scored together; set pad_token in its "
                "tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    _check_vocabulary(name, len(tokenizer), len(set(tokenizer.all_special_ids)), rows, tokenizer)
    # A decoder's head looks for the last token that is not this one.
    if getattr(config, "pad_token_id", None) is None or hasattr(transformer.model, "score"):
        config.pad_token_id = transformer.model.config.pad_token_id = tokenizer.pad_token_id


def _check_vocabulary(name: str, tokens: int, special: int, rows: int, tokenizer: Any = None) -> None:
    if tokens <= special + 1:
        raise CheckpointError(
            f"{name}: cannot be loaded: holds no tokenizer (tokenizer.json, vocab.txt or a .model file); copy it from "
            "where the weights come from."
        )
    if tokens <= rows:
        return
    unfit = set(range(tokens))
    if tokenizer is not None:  # tokens that were added later may be in no text
        own = set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder)
        unfit = {*own, tokenizer.pad_token_id, *tokenizer("a", "a")["input_ids"]}
    if (largest := max(unfit)) >= rows:
        raise CheckpointError(
            f"{name}: cannot be loaded: its tokenizer has tokens up to number {largest}, the weights have rows for "
            f"{rows}: they do not belong together."
        )
