"""Every kind of reranker goes the whole way: loaded, scored, trained, saved, moved, loaded and exported."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import radio_dspy as radio
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.distillation import PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.models.bi_encoder import COSINE_TEMPERATURE
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.models.shared import forget_models

QUESTION = "why does the kettle sing?"
TEXTS = ["Bubbles of steam collapse.", "A kettle of tea, and a longer text about cups.", "no"]
GROUPS = [
    PreferenceGroup(QUESTION, TEXTS[0], tuple(TEXTS[1:])),
    PreferenceGroup("what is a cup?", TEXTS[1], tuple(TEXTS[::2])),
]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[M]"}
TEMPLATE = (
    "{%- for m in messages if m.role == 'system' %}judge : {{ m.content }} {% endfor -%}"
    "{%- for m in messages if m.role == 'query' %}query : {{ m.content }} {% endfor -%}"
    "{%- for m in messages if m.role == 'document' %}document : {{ m.content }} {% endfor -%}answer :"
)
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
    "num_labels": 1,
}
DECODER = {"num_key_value_heads": 1, "head_dim": 8}
MODERN = {"global_attn_every_n_layers": 2, "local_attention": 8}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 16,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pooler_hidden_size": 16,
}
CROSS, CAUSAL = "AutoModelForSequenceClassification", "AutoModelForCausalLM"


def tokenizer_of(template: str | None = None, *, special: bool = True) -> Any:
    """Words of the texts above, and letters for all others."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = f"{QUESTION} {' '.join(TEXTS)} yes judge query document answer : what is".lower()
    split = [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(words)]
    vocabulary = dict.fromkeys([*SPECIAL.values(), *letters, *(f"##{one}" for one in letters), *split])
    tokenizer = Tokenizer(
        models.WordPiece({word: row for row, word in enumerate(vocabulary)}, unk_token=SPECIAL["unk_token"])
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special:
        ends = [(SPECIAL[name], tokenizer.token_to_id(SPECIAL[name])) for name in ("cls_token", "sep_token")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **SPECIAL)
    found.chat_template = template
    return found


def plain(folder: Path, kind: str, cls: str, template: str | None = None, **settings: Any) -> Path:
    """A transformers folder with tiny random weights."""
    tokenizer = tokenizer_of(template, special="head_dim" not in settings)
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, "vocab_size": len(tokenizer), **settings})
    model = getattr(transformers, cls).from_config(config)
    for one in model.parameters():
        torch.nn.init.normal_(one, std=0.3)
    with quiet_loading():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def prompted(folder: Path, base: Path, prompt: str) -> Path:
    """The same as a reranker that declares a prompt, as those on the hub do."""
    with quiet_loading():
        model = CrossEncoder(str(base), device="cpu", prompts={"web": prompt}, default_prompt_name="web")
        model.save_pretrained(str(folder), create_model_card=False)
    return folder


def vectors(folder: Path, modules: list[Any], **settings: Any) -> Path:
    with quiet_loading():
        model = SentenceTransformer(modules=modules, device="cpu", **settings)
        model.save_pretrained(str(folder), create_model_card=False)
    return folder


def causal(folder: Path) -> Path:
    return prompted(folder, plain(folder / "plain", "qwen3", CAUSAL, TEMPLATE, **DECODER), "is it an answer?")


def static(folder: Path) -> Path:
    torch.manual_seed(2)
    return vectors(folder, [StaticEmbedding(tokenizer_of(), embedding_dim=16)], truncate_dim=8)


def dense(folder: Path) -> Path:
    encoder = plain(folder / "plain", "bert", "AutoModel")
    torch.manual_seed(2)
    with quiet_loading():
        modules = [Transformer(str(encoder)), Pooling(16, "cls"), Dense(16, 8)]
    return vectors(folder, modules, truncate_dim=6, prompts={"query": "ask : ", "document": ""})


def padded_left(kind: str, **settings: Any) -> Callable[[Path], Path]:
    """In a batch, padding before a text moves its learned positions, or is read in place of its first token."""

    def make(folder: Path) -> Path:
        plain(folder, kind, CROSS, **settings)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
        return folder

    return make


@dataclass(frozen=True)
class Kind:
    """How a reranker is made, opened, and scored by sentence-transformers: in a batch, or each text alone."""

    make: Callable[[Path], Path]
    settings: dict[str, Any] = field(default_factory=dict)
    bi: bool = False
    lowered: bool = True
    alone: bool = False

    def expected(self, folder: Path) -> Any:
        with quiet_loading():
            if self.bi:
                model = SentenceTransformer(str(folder), device="cpu")
                return model.similarity(model.encode_query(QUESTION), model.encode_document(TEXTS))[0].numpy()
            model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
        size = 1 if self.alone else 32
        pairs = [(QUESTION, text) for text in TEXTS]
        found = model.predict(pairs, prompt=self.settings.get("prompt"), batch_size=size)
        return found[:, 1] - found[:, 0] if found.ndim == 2 else found


def of(kind: str, cls: str = CROSS, **settings: Any) -> Callable[[Path], Path]:
    return lambda folder: plain(folder, kind, cls, **settings)


KINDS = {
    "BERT": Kind(of("bert")),
    "XLM-R": Kind(of("xlm-roberta")),
    "two outputs": Kind(of("bert", num_labels=2)),
    "ModernBERT": Kind(of("modernbert", **MODERN)),
    "DeBERTa-v3": Kind(of("deberta-v2", **DEBERTA)),
    "Qwen3 with a head": Kind(of("qwen3", **DECODER)),
    "GPT-2, padded left": Kind(padded_left("gpt2"), lowered=False, alone=True),
    "GPT-Neo, padded left": Kind(
        padded_left("gpt_neo", attention_types=[[["global", "local"], 1]], num_layers=2, num_heads=2),
        lowered=False,
        alone=True,
    ),
    "ModernBERT, padded left": Kind(padded_left("modernbert", **MODERN), alone=True),
    "causal, its own prompt": Kind(causal),
    "causal, another prompt": Kind(causal, {"prompt": "is it about steam?"}),
    "causal, no prompt": Kind(causal, {"prompt": ""}),
    "static, cut": Kind(static, bi=True, lowered=False),
    "Dense, cut": Kind(dense, bi=True),
}


class Desk(dspy.Module):
    """A program that holds a reranker and nothing else."""

    def __init__(self, rerank: radio.Rerank) -> None:
        super().__init__()
        self.rerank = rerank

    def forward(self) -> list[float]:
        found = self.rerank(QUESTION, TEXTS)
        return [found.scores[found.indices.index(place)] for place in range(len(TEXTS))]


@pytest.fixture(autouse=True)
def _nothing_kept():
    yield
    forget_models()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_scores_stay_the_same_on_the_whole_way(kind, tmp_path):
    folder = kind.make(tmp_path / "model")
    rerank = radio.Rerank(str(folder), device="cpu", **kind.settings)
    assert rerank.weights.architecture == ("bi-encoder" if kind.bi else "cross-encoder")
    before = Desk(rerank)()
    np.testing.assert_allclose(before, kind.expected(folder), atol=1e-4)
    assert np.ptp(before) > 1e-4

    scorer = open_scorer(rerank.weights, "cpu")
    logits = scorer.logits([(QUESTION, text) for text in TEXTS])
    assert logits.requires_grad
    np.testing.assert_allclose(logits.detach() * (COSINE_TEMPERATURE if kind.bi else 1), before, atol=1e-4)

    how = TrainingSettings(1, 1e-2, per_device_train_batch_size=2, device="cpu", disable_tqdm=True)
    train_reranker(rerank.weights, GROUPS, tmp_path / "trained", how)
    rerank.weights = rerank.weights.with_checkpoint(tmp_path / "trained")
    after = Desk(rerank)()
    assert np.abs(np.subtract(after, before)).max() > 1e-4
    np.testing.assert_allclose(after, kind.expected(tmp_path / "trained"), atol=1e-4)
    rounded = radio.Rerank(str(tmp_path / "trained"), device="cpu", precision="bf16", **kind.settings)
    if kind.lowered:
        np.testing.assert_allclose(found := Desk(rounded)(), after, atol=0.05)
        assert found != after
    else:
        with pytest.raises(SettingsError, match="score it with precision='fp32'"):
            Desk(rounded)()

    exported = radio.export(rerank, tmp_path / "exported")
    kept = {**kind.settings, "prompt": None} if "prompt" in kind.settings else {}
    np.testing.assert_allclose(replace(kind, settings=kept).expected(exported), after, atol=1e-4)
    radio.save(Desk(rerank), tmp_path / "saved")
    moved = shutil.move(tmp_path / "saved", tmp_path / "moved")
    shutil.rmtree(tmp_path / "trained")
    forget_models()
    loaded = radio.load(moved, program=Desk(radio.Rerank(str(exported))))
    assert loaded.rerank.weights.prompt == kind.settings.get("prompt")
    np.testing.assert_allclose(loaded(), after, atol=1e-5)


class TestArchitecture:
    def test_a_cross_encoder_gives_no_vectors_and_says_so_at_once(self, tmp_path):
        for folder in (plain(tmp_path / "plain", "bert", CROSS), causal(tmp_path / "causal")):
            with pytest.raises(CheckpointError, match="is a cross-encoder"):
                radio.Rerank(str(folder), "bi-encoder")

    def test_an_encoder_that_says_nothing_is_asked_about(self, tmp_path):
        folder = plain(tmp_path / "model", "bert", "AutoModel")
        with pytest.raises(SettingsError, match="does not say what it was made for"):
            radio.Rerank(str(folder))
        assert radio.Rerank(str(folder), "cross-encoder").weights.architecture == "cross-encoder"

    def test_a_prompt_needs_a_cross_encoder(self, tmp_path):
        with pytest.raises(SettingsError, match="prompt= is a cross-encoder's"):
            radio.Rerank(str(static(tmp_path / "static")), prompt="is it an answer?")
