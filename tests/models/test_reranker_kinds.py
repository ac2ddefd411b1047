"""Every kind of reranker goes the whole way: loaded, scored, trained, saved, moved, loaded and exported."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import radio_dspy as radio
from radio_dspy.core.errors import CheckpointError, SettingsError, UnsafeFileError
from radio_dspy.distillation import PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.distillation.training.settings import LoraSettings
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.models.shared import forget_models

QUESTION = "why does the kettle sing?"
TEXTS = ["Bubbles of steam collapse.", "A kettle of tea, and a longer text about cups.", "no", "tea steam cup " * 40]
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


def tokenizer_of(template: str | None = None, *, special: bool = True, limit: int = 64) -> Any:
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
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **SPECIAL)
    found.chat_template = template
    return found


def plain(
    folder: Path,
    kind: str,
    cls: str,
    template: str | None = None,
    *,
    limit: int = 64,
    apart: bool = False,
    **settings: Any,
) -> Path:
    """A transformers folder with tiny random weights; with ``apart`` the vectors of tokens do not all lie close."""
    tokenizer = tokenizer_of(template, special="head_dim" not in settings, limit=limit)
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, "vocab_size": len(tokenizer), **settings})
    model = getattr(transformers, cls).from_config(config)
    for one in model.parameters():
        if one.ndim > 1 or not apart:
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
        modules = [Transformer(str(encoder)), Pooling(16, "mean"), Dense(16, 8, bias=False)]
    return vectors(folder, modules, truncate_dim=6, prompts={"query": "ask : ", "document": ""})


def padded_left(kind: str, **settings: Any) -> Callable[[Path], Path]:
    """In a batch, padding before a text moves its learned positions, or is read in place of its first token."""

    def make(folder: Path) -> Path:
        plain(folder, kind, CROSS, **settings)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
        return folder

    return make


def colbert(folder: Path, kind: str = "bert", similarity: str = "maxsim", **settings: Any) -> Path:
    """Masks fill queries up, as in the first one, and punctuation is left out of passages."""
    encoder = plain(folder / "plain", kind, "AutoModel", apart=True, **settings)
    torch.manual_seed(2)
    projection = Dense(16, 8, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
    filled = {"strategy": "fixed", "attend": False, "length": 20} if kind == "bert" else None
    with quiet_loading():
        transformer = Transformer(str(encoder), query_expansion=filled, document_length=40)
        modules = [transformer, projection, MultiVectorMask([".", ","]), Normalize("token_embeddings")]
        model = MultiVectorEncoder(
            modules=modules,
            device="cpu",
            similarity_fn_name=similarity,
            prompts={"query": "query : ", "document": "document : "},
        )
        model.save_pretrained(str(folder), create_model_card=False)
    return folder


def change(path: Path, **values: Any) -> None:
    """Change a file of settings; None takes a key away."""
    found = {**json.loads(path.read_text()), **values} if path.exists() else values
    path.write_text(json.dumps({key: one for key, one in found.items() if one is not None}))


def pylate(folder: Path) -> Path:
    """As PyLate saves it: no mask, no normalization, its own settings, a class of its own."""
    colbert(folder)
    modules = json.loads((folder / "modules.json").read_text())[:2]
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    change(folder / "sentence_bert_config.json", query_expansion=None, document_length=None)
    change(folder / "1_Dense" / "config.json", module_input_name=None, module_output_name=None)
    change(
        folder / "config_sentence_transformers.json",
        model_type="ColBERT",
        query_prefix="[Q] ",
        document_prefix="[D] ",
        query_length=20,
        document_length=40,
        skiplist_words=[".", ",", "/", ":"],
    )
    return folder


def stanford(folder: Path) -> Path:
    """As Stanford's own code saves it: the projection beside the encoder's tensors."""
    plain(folder, "bert", "AutoModel", apart=True)
    tensors = {f"bert.{name}": one for name, one in load_file(folder / "model.safetensors").items()}
    torch.manual_seed(2)
    tensors["linear.weight"] = torch.randn(8, 16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    change(folder / "config.json", architectures=["HF_ColBERT"])
    change(folder / "artifact.metadata", query_maxlen=20, doc_maxlen=40, dim=8, root="/of/another/machine", lr=1e-5)
    return folder


@dataclass(frozen=True)
class Kind:
    """How a reranker is made, opened, trained, and scored by sentence-transformers."""

    make: Callable[[Path], Path]
    settings: dict[str, Any] = field(default_factory=dict)
    architecture: str = "cross-encoder"
    training: dict[str, Any] = field(default_factory=dict)
    logit: float = 1.0  # how many times the score
    lowered: bool = True
    window: int | None = None

    def expected(self, folder: Path, passages: Path | None = None, prompt: str | None = None) -> Any:
        """sentence-transformers' scores; another folder may encode the passages."""
        with quiet_loading():
            if self.architecture != "cross-encoder":
                cls = SentenceTransformer if self.architecture == "bi-encoder" else MultiVectorEncoder
                model, other = (cls(str(one), device="cpu") for one in (folder, passages or folder))
                return model.similarity(model.encode_query([QUESTION]), other.encode_document(TEXTS))[0].numpy()
            model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
        if self.window:
            model[0].max_seq_length = self.window
        found = model.predict([(QUESTION, text) for text in TEXTS], prompt=prompt, batch_size=1)
        return found[:, 1] - found[:, 0] if found.ndim == 2 else found


def of(kind: str, cls: str = CROSS, **settings: Any) -> Callable[[Path], Path]:
    return lambda folder: plain(folder, kind, cls, **settings)


def asking(folder: Path) -> Path:
    return prompted(folder, plain(folder / "plain", "bert", CROSS), "is it an answer ? ")


QUERY_SIDE = {"tower": "query"}
KINDS = {
    "BERT": Kind(of("bert")),
    "BERT, its own prompt": Kind(asking),
    "BERT, longer than its positions": Kind(of("bert"), {"max_length": 1024}, window=66),
    "XLM-R, no limit named": Kind(of("xlm-roberta", pad_token_id=1, limit=int(1e30)), window=64),
    "two outputs": Kind(of("bert", num_labels=2)),
    "ModernBERT": Kind(of("modernbert", **MODERN)),
    "DeBERTa-v3": Kind(of("deberta-v2", **DEBERTA)),
    "Qwen3 with a head": Kind(of("qwen3", **DECODER)),
    "GPT-2, padded left": Kind(padded_left("gpt2"), lowered=False),
    "GPT-Neo, padded left": Kind(
        padded_left("gpt_neo", attention_types=[[["global", "local"], 1]], num_layers=2, num_heads=2),
        lowered=False,
    ),
    "ModernBERT, padded left": Kind(padded_left("modernbert", **MODERN)),
    "Qwen3 with a head, LoRA": Kind(of("qwen3", **DECODER), training={"lora": LoraSettings(rank=2)}),
    "Qwen2 with a head, no pad token": Kind(of("qwen2", **{**DECODER, "pad_token_id": None})),
    "causal, its own prompt": Kind(causal),
    "causal, another prompt": Kind(causal, {"prompt": "is it about steam?"}),
    "causal, no prompt": Kind(causal, {"prompt": ""}),
    "static, cut": Kind(static, architecture="bi-encoder", logit=20.0, lowered=False),
    "Dense, cut": Kind(dense, architecture="bi-encoder", logit=20.0),
    "Dense, cut, query side": Kind(dense, architecture="bi-encoder", logit=20.0, training=QUERY_SIDE),
    "ColBERT": Kind(colbert, architecture="late-interaction"),
    "ColBERT, query side": Kind(colbert, architecture="late-interaction", training=QUERY_SIDE),
    "ColBERT of PyLate": Kind(pylate, architecture="late-interaction"),
    "ColBERT of Stanford": Kind(stanford, architecture="late-interaction"),
    "ColBERT on ModernBERT, the mean": Kind(
        lambda folder: colbert(folder, "modernbert", "meanmaxsim", **MODERN),
        architecture="late-interaction",
        logit=20.0,
    ),
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


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, list[float]]:
    """Folders that hold a saved program, and the scores of each before it was saved."""
    return {}


@pytest.mark.parametrize("name", KINDS)
def test_scores_stay_the_same_on_the_whole_way(name, tmp_path, tmp_path_factory, saved):
    kind, base = KINDS[name], tmp_path / "model"
    folder = kind.make(base)
    rerank = radio.Rerank(str(folder), device="cpu", **kind.settings)
    prompt = kind.settings.get("prompt")
    assert rerank.weights.architecture == kind.architecture
    before = Desk(rerank)()
    np.testing.assert_allclose(before, kind.expected(folder, prompt=prompt), atol=1e-4)
    assert np.ptp(before) > 1e-4

    logits = open_scorer(rerank.weights, "cpu").logits([(QUESTION, text) for text in TEXTS])
    assert logits.requires_grad
    np.testing.assert_allclose(logits.detach() / kind.logit, before, atol=1e-4)

    how = TrainingSettings(3, 1e-2, per_device_train_batch_size=2, device="cpu", disable_tqdm=True, **kind.training)
    train_reranker(rerank.weights, GROUPS, tmp_path / "trained", how)
    passages = folder if kind.training == QUERY_SIDE else None
    rerank.weights = rerank.weights.with_checkpoint(tmp_path / "trained", passages)
    after = Desk(rerank)()
    assert np.abs(np.subtract(after, before)).max() > 1e-4
    np.testing.assert_allclose(after, kind.expected(tmp_path / "trained", passages, prompt), atol=1e-4)
    rounded = Desk(radio.Rerank(str(tmp_path / "trained"), device="cpu", precision="bf16", **kind.settings))
    rounded.rerank.weights = rerank.weights
    if kind.lowered:
        np.testing.assert_allclose(found := rounded(), after, atol=0.05, rtol=0.03)
        assert found != after
    else:
        with pytest.raises(SettingsError, match="score it with precision='fp32'"):
            rounded()

    exported = radio.export(rerank, tmp_path / "exported")
    np.testing.assert_allclose(kind.expected(exported), after, atol=1e-4)
    radio.save(Desk(rerank), tmp_path / "saved")
    moved = tmp_path_factory.mktemp("moved") / "program"
    shutil.move(tmp_path / "saved", moved)
    shutil.rmtree(tmp_path / "trained")
    forget_models()
    loaded = radio.load(moved, program=Desk(radio.Rerank(str(exported))))
    assert loaded.rerank.weights.prompt == prompt
    np.testing.assert_allclose(loaded(), after, atol=1e-5)
    saved[str(moved)] = after


ELSEWHERE = """
import json, sys
from radio_dspy.models.cache import score_lists
from radio_dspy.persistence.saving import load_weights
question, texts, folders = json.load(sys.stdin)
for folder in folders:
    (weights,) = load_weights(folder).values()
    print("SCORES", json.dumps(score_lists(weights, [(question, texts)], "cpu")[0].tolist()))
"""


def test_and_in_another_process(saved):
    given = json.dumps([QUESTION, TEXTS, list(saved)])
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=given, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("SCORES")]
    assert len(found) == len(saved)
    for scores, expected in zip(found, saved.values(), strict=True):
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def binary(folder: Path) -> Path:
    """A Dense module whose weights are a pickle, LaBSE's layout."""
    dense(folder)
    torch.save({}, folder / "2_Dense" / "pytorch_model.bin")
    (folder / "2_Dense" / "model.safetensors").unlink()
    return folder


def another(folder: Path) -> Path:
    vectors(folder, [StaticEmbedding(tokenizer_of(), embedding_dim=16)])
    change(folder / "config_sentence_transformers.json", model_type="SparseEncoder")
    return folder


WRONG = [
    (of("bert"), "bi-encoder", CheckpointError, "is a cross-encoder.*architecture='cross-encoder'"),
    (of("bert"), "late-interaction", CheckpointError, "is a cross-encoder.*architecture='cross-encoder'"),
    (causal, "bi-encoder", CheckpointError, "is a cross-encoder"),
    (of("bert", "AutoModel"), None, SettingsError, "does not say what it was made for"),
    (of("bert", "AutoModel"), "cross-encoder", CheckpointError, "holds no head that scores pairs.*new_head=True"),
    (of("bert", "AutoModelForMaskedLM"), "cross-encoder", CheckpointError, "holds no head that scores pairs"),
    (of("bert", "AutoModel"), "late-interaction", CheckpointError, "holds no projection of tokens"),
    (static, "cross-encoder", CheckpointError, "holds no head that scores pairs"),
    (colbert, "bi-encoder", CheckpointError, "one vector a token.*architecture='late-interaction'"),
    (colbert, "cross-encoder", CheckpointError, "one vector a token"),
    (another, None, CheckpointError, "is a SparseEncoder"),
    (of("bert"), "colbert", SettingsError, "architecture must be one of"),
]


@pytest.mark.parametrize(("make", "architecture", "error", "message"), WRONG)
def test_a_wrong_architecture_is_an_error_before_weights_are_read(
    make, architecture, error, message, tmp_path, monkeypatch
):
    folder = make(tmp_path / "model")
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", lambda *_, **__: pytest.fail("was loaded"))
    with pytest.raises(error, match=message):
        radio.Rerank(str(folder), architecture)


@pytest.mark.parametrize("architecture", ["cross-encoder", "late-interaction"])
def test_a_head_that_is_asked_for_is_drawn_the_same_each_time(architecture, tmp_path):
    folder = plain(tmp_path / "model", "bert", "AutoModel")
    rerank = radio.Rerank(str(folder), architecture, new_head=True)
    before = rerank(QUESTION, TEXTS).scores
    forget_models()
    assert rerank(QUESTION, TEXTS).scores == before
    radio.save(Desk(rerank), tmp_path / "saved")
    loaded = radio.load(tmp_path / "saved", program=Desk(radio.Rerank(str(folder), "bi-encoder")))
    assert loaded.rerank(QUESTION, TEXTS).scores == before


def test_a_pickle_is_refused(tmp_path):
    with pytest.raises(UnsafeFileError, match=r"pytorch_model\.bin, which may hold code"):
        radio.Rerank(str(binary(tmp_path / "model")))(QUESTION, TEXTS)


@pytest.mark.parametrize("make", [static, colbert])
def test_a_prompt_needs_a_cross_encoder(make, tmp_path):
    with pytest.raises(SettingsError, match="prompt= is a cross-encoder's"):
        radio.Rerank(str(make(tmp_path / "model")), prompt="is it an answer?")
