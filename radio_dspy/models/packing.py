"""Encoder batches without padding: texts of different lengths stand one after the other in a single row.

Everything but attention works on each token by itself, so it need not know where a text ends. Attention runs over
buckets of texts of similar length. The results are those of a padded batch; the padding is not computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import CNN, LSTM, WordWeights
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "radio_packed"
# Encoders that mix tokens in attention only, take positions as an input, and classify by a text's first token.
PACKED_MODELS = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
_TASKS = ("feature-extraction", "sequence-classification")
_BUCKET = 1.2  # a bucket's longest text against its shortest
_BY_TOKEN = ("input_ids", "token_type_ids")
_MIX_TOKENS = (CNN, LSTM, WordWeights)  # after the encoder, and they do not see where a text ends


@dataclass(frozen=True, slots=True)
class Bucket:
    """Texts of similar length, over which attention runs in one call.

    Attributes:
        texts: Which they are, int64 of shape (texts,).
        rows: Positions of their tokens in the packed row, int64 of shape (texts, longest).
        real: Which of these are tokens and no padding, bool of the same shape; None where all are.
    """

    texts: torch.Tensor
    rows: torch.Tensor
    real: torch.Tensor | None

    @property
    def mask(self) -> torch.Tensor | None:
        """``real`` as SDPA wants it, of shape (texts, 1, 1, longest)."""
        return None if self.real is None else self.real[:, None, None, :]

    def heads(self, stream: torch.Tensor) -> torch.Tensor:
        """Its part of a row's queries, keys or values.

        Takes (tokens, heads, dimension), gives (texts, heads, longest, dimension).
        """
        return stream.index_select(0, self.rows.flatten()).unflatten(0, self.rows.shape).transpose(1, 2)


class Packing:
    """Positions of the texts in a packed row.

    Args:
        lengths: Tokens of each text, in the row's order.
        device: Where the row is.

    Attributes:
        starts: Position of each text's first token, int64 of shape (texts,).
    """

    def __init__(self, lengths: Sequence[int], device: str | torch.device = "cpu") -> None:
        self.lengths = torch.tensor(lengths)
        self.device = torch.device(device)
        self.starts = (self.lengths.cumsum(0) - self.lengths).to(device)
        self._moved: dict[torch.device, Packing] = {}

    def on(self, device: torch.device) -> Packing:
        """The same for a row on another device, made once."""
        if device == self.device:
            return self
        if device not in self._moved:
            self._moved[device] = Packing(self.lengths.tolist(), device)
        return self._moved[device]

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The texts by their length."""
        lengths, order = self.lengths.sort(stable=True)
        firsts = [0]
        for place, length in enumerate(lengths.tolist()):
            if length > _BUCKET * lengths[firsts[-1]]:
                firsts.append(place)
        return [self._bucket(order[first:last]) for first, last in zip(firsts, [*firsts[1:], None], strict=True)]

    def _bucket(self, texts: torch.Tensor) -> Bucket:
        lengths = self.lengths[texts][:, None]
        steps = torch.arange(int(lengths.max()))
        starts = self.starts.cpu()[texts][:, None]
        real = steps < lengths
        rows = starts + torch.minimum(steps, lengths - 1)
        return Bucket(texts.to(self.device), rows.to(self.device), None if real.all() else real.to(self.device))

    @cached_property
    def places(self) -> torch.Tensor:
        """Position of each of the row's tokens among the real tokens of all buckets, int64 of shape (tokens,)."""
        return _inverse(
            torch.cat([one.rows.flatten() if one.real is None else one.rows[one.real] for one in self.buckets])
        )

    @cached_property
    def text_places(self) -> torch.Tensor:
        """Position of each text among the texts of all buckets, int64 of shape (texts,)."""
        return _inverse(torch.cat([one.texts for one in self.buckets]))


def _inverse(order: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def pack(
    samples: Sequence[dict[str, list[int]]], first_position: int = 0, pad_token: int | None = None
) -> dict[str, Any]:
    """Put the tokens of several texts into one row.

    Args:
        samples: What a tokenizer gives for each text, unpadded.
        first_position: Position of a text's first token; RoBERTa and its kin do not begin at 0.
        pad_token: One that has no position of its own where a text contains it; None where there is no such token.

    Returns:
        The model's inputs, int64 of shape (1, tokens); ``cu_seq_lens_q``, int64 of shape (texts + 1,), which
        sentence-transformers' pooling reads; and the ``packing``.

    Example:
        >>> row = pack([{"input_ids": [101, 7, 102]}, {"input_ids": [101, 102]}])
        >>> row["input_ids"].tolist(), row["position_ids"].tolist(), row["cu_seq_lens_q"].tolist()
        ([[101, 7, 102, 101, 102]], [[0, 1, 2, 0, 1]], [0, 3, 5])
    """
    lengths = [len(one["input_ids"]) for one in samples]
    names = [name for name in _BY_TOKEN if name in samples[0]]
    row = {name: torch.tensor([[token for one in samples for token in one[name]]]) for name in names}
    positions = [place for one in samples for place in _positions(one["input_ids"], first_position, pad_token)]
    return {
        **row,
        "position_ids": torch.tensor([positions]),
        "cu_seq_lens_q": torch.tensor([0, *lengths]).cumsum(0),
        "packing": Packing(lengths),
    }


def _positions(tokens: Sequence[int], first: int, pad_token: int | None) -> Iterable[int]:
    if pad_token not in tokens:
        return range(first, first + len(tokens))
    seen = accumulate(token != pad_token for token in tokens)
    return [first - 1 + count * (token != pad_token) for token, count in zip(tokens, seen, strict=True)]


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text of a packed row; a padded batch goes to SDPA as it is.

    Args:
        module: The attention layer.
        query: Float of shape (1, heads, tokens, dimension); ``key`` and ``value`` alike.
        key: See ``query``.
        value: See ``query``.
        attention_mask: Of a padded batch.
        packing: Where the texts stand; None for a padded batch.
        **kwargs: SDPA's settings: dropout, scaling.

    Returns:
        Float of shape (1, tokens, heads, dimension), and None in place of attention weights.
    """
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    packing = packing.on(query.device)
    streams = [one[0].transpose(0, 1) for one in (query, key, value)]  # (tokens, heads, dimension)
    attended = []
    for bucket in packing.buckets:
        queries, keys, values = (bucket.heads(one) for one in streams)
        found, _ = sdpa_attention_forward(module, queries, keys, values, bucket.mask, **kwargs)
        attended.append(found.flatten(0, 1) if bucket.real is None else found[bucket.real])
    return torch.cat(attended).index_select(0, packing.places)[None], None


def first_token_attention(
    layer: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The last layer's attention where a head reads nothing but each text's first token: the others are left out.

    Args:
        layer: A ``BertAttention`` or one of its kin.
        hidden_states: Float of shape (1, tokens, dimension).
        attention_mask: Of a padded batch.
        packing: Where the texts stand; None for a padded batch, which is computed as ever.
        **kwargs: The layer's further arguments.

    Returns:
        Float of shape (1, texts, dimension), and None in place of attention weights.
    """
    if packing is None:
        return type(layer).forward(layer, hidden_states, attention_mask, **kwargs)
    packing, own = packing.on(hidden_states.device), layer.self
    firsts = hidden_states.index_select(1, packing.starts)
    heads = (-1, own.attention_head_size)
    queries = own.query(firsts)[0].unflatten(-1, heads)[:, :, None]  # (texts, heads, 1, dimension)
    keys, values = (project(hidden_states)[0].unflatten(-1, heads) for project in (own.key, own.value))
    dropout = own.dropout.p if own.training else 0.0
    attended = []
    for bucket in packing.buckets:
        found, _ = sdpa_attention_forward(
            own,
            queries.index_select(0, bucket.texts),
            bucket.heads(keys),
            bucket.heads(values),
            bucket.mask,
            dropout=dropout,
            scaling=own.scaling,
            is_causal=False,
        )
        attended.append(found.flatten(1))
    return layer.output(torch.cat(attended).index_select(0, packing.text_places)[None], firsts), None


def enable_packing(model: torch.nn.Module) -> int:
    """Make a ``SentenceTransformer`` or ``CrossEncoder`` pack its texts from now on, where its encoder allows it.

    It uses the seam that sentence-transformers has for flash attention, which itself needs a GPU and drops token types.
    ``model[0].unpad_inputs = False`` goes back to padding.

    Returns:
        How many of its encoders pack: 0 for a kind of model that is not in ``PACKED_MODELS``.
    """
    if any(isinstance(one, _MIX_TOKENS) for one in model.modules()):
        return 0
    found = [one for one in model.modules() if isinstance(one, Transformer) and _can_pack(one)]
    for transformer in found:
        _enable(transformer)
    return len(found)


def _can_pack(transformer: Transformer) -> bool:
    config = transformer.config
    return (
        transformer.backend == "torch"
        and transformer.transformer_task in _TASKS
        and transformer.unpad_inputs is not False
        and not transformer.can_flatten_inputs  # flash attention packs by itself
        and config.model_type in PACKED_MODELS
        and config._attn_implementation == "sdpa"
        and not config.is_decoder
    )


def _enable(transformer: Any) -> None:
    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    encoder = transformer.model
    encoder.set_attn_implementation(ATTENTION)
    first_position = transformer._infer_flatten_position_offset()
    transformer._flatten_position_offset = 0  # what would be added to the collator's positions
    # RoBERTa and its kin, whose positions begin after the padding token's
    pad_token = first_position - 1 if first_position else None
    transformer.data_collator = lambda samples: pack(samples, first_position, pad_token)
    transformer.can_flatten_inputs = True
    if transformer.model_forward_params is not None:
        transformer.model_forward_params = {*transformer.model_forward_params, "position_ids", "packing"}
    if transformer.transformer_task == "sequence-classification":
        last = encoder.base_model.encoder.layer[-1].attention
        last.forward = partial(first_token_attention, last)
        encoder.base_model.encoder.register_forward_hook(_as_texts, with_kwargs=True)


def _as_texts(module: torch.nn.Module, args: Any, inputs: dict[str, Any], output: Any) -> Any:
    """Put the first token of every text where a classification head looks for it: (texts, 1, dimension)."""
    if inputs.get("packing"):
        output.last_hidden_state = output.last_hidden_state.transpose(0, 1)
    return output
