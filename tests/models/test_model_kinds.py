"""Models of every kind score, train and export as sentence-transformers runs them. All are tiny and random."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import CNN, Pooling, StaticEmbedding, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

import radio_dspy as radio
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.distillation import PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.distillation.training.settings import LoraSettings
from radio_dspy.models.bi_encoder import COSINE_TEMPERATURE
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.models.shared import forget_models
from radio_dspy.models.weights import RerankerWeights
from tests.conftest import ENCODER

QUESTION = "why does the kettle sing?"
TEXTS = ["Bubbles of steam collapse.", "A kettle of tea, and a longer text about cups.", "no"]
GROUPS = [
    PreferenceGroup(QUESTION, TEXTS[0], tuple(TEXTS[1:])),
    PreferenceGroup("what is a cup?", TEXTS[1], tuple(TEXTS[::2])),
]
SIZES = {
    "vocab_size": 30522,
    "max_position_embeddings": 64,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "pad_token_id": 0,
    "num_labels": 1,
}
DISTILBERT = {"dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2}
DEBERTA = {"relative_attention": True, "position_buckets": 16, "pos_att_type": ["c2p", "p2c"]}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
T5 |= {"eos_token_id": 102, "decoder_start_token_id": 0}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "eos_token_id": 102}
VNNI = torch.cpu.get_capabilities().get("avx512_vnni") or torch.cpu.get_capabilities().get("avx_vnni")
INT8 = pytest.mark.skipif(not VNNI, reason="needs a processor with VNNI")


@pytest.fixture(autouse=True)
def _nothing_kept():
    yield
    forget_models()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a tiny random model of a kind, with a tokenizer; each once."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(radio.weights(ENCODER))
    kept = {}

    def make(kind, cls="AutoModel", dtype=torch.float32, **settings):
        key = json.dumps([kind, cls, str(dtype), settings])
        if key not in kept:
            kept[key] = tmp_path_factory.mktemp("model") / kind
            torch.manual_seed(3)
            config = transformers.AutoConfig.for_model(kind, **{**SIZES, **settings})
            model = getattr(transformers, cls).from_config(config)
            for one in model.parameters():
                torch.nn.init.normal_(one, std=0.3)
            with quiet_loading():
                model.to(dtype).save_pretrained(kept[key])
                tokenizer.save_pretrained(kept[key])
        return kept[key]

    return make


CROSS = "AutoModelForSequenceClassification"


def saved(modules, folder, **settings):
    with quiet_loading():
        SentenceTransformer(modules=modules, device="cpu", **settings).save_pretrained(str(folder))
    return folder


def pooled(folder, mode="mean"):
    with quiet_loading():
        return [Transformer(str(folder)), Pooling(16, mode)]


def static(dimension=16):
    torch.manual_seed(2)
    return StaticEmbedding(Tokenizer.from_file(f"{radio.weights(ENCODER)}/tokenizer.json"), embedding_dim=dimension)


def routed(query, document, folder):
    return saved([Router.for_query_document(query, document)], folder)


def ours(folder, architecture, **settings):
    found = radio.Rerank(str(folder), architecture, device="cpu", **settings)(QUESTION, TEXTS)
    return np.array(found.scores)[np.argsort(found.indices)]


def theirs(folder, architecture):
    with quiet_loading():
        if architecture == "cross-encoder":
            model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
            return model.predict([(QUESTION, text) for text in TEXTS], show_progress_bar=False)
        model = SentenceTransformer(str(folder), device="cpu")
    return model.similarity(model.encode_query(QUESTION), model.encode_document(TEXTS))[0].numpy()


def train(folder, architecture, output, **settings):
    how = TrainingSettings(1, 1e-2, per_device_train_batch_size=1, device="cpu", disable_tqdm=True, **settings)
    train_reranker(RerankerWeights(str(folder), architecture), GROUPS, output, how)
    return output


class TestTraining:
    @pytest.mark.parametrize("kind", ["routes", "static query"])
    @pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["whole", "lora"])
    def test_what_is_no_single_transformer(self, made, kind, lora, tmp_path):
        query = [static()] if kind == "static query" else pooled(made("bert"), "cls")
        folder = routed(query, pooled(made("distilbert", **DISTILBERT)), tmp_path / "model")
        before = ours(folder, "bi-encoder")
        np.testing.assert_allclose(before, theirs(folder, "bi-encoder"), atol=1e-4)
        trained = train(folder, "bi-encoder", tmp_path / "out", lora=lora)
        after = ours(trained, "bi-encoder")
        assert np.abs(after - before).max() > 1e-6
        np.testing.assert_allclose(after, theirs(trained, "bi-encoder"), atol=1e-4)

    def test_adapters_need_a_transformer(self, tmp_path):
        folder = saved([static()], tmp_path / "model")
        with pytest.raises(SettingsError, match="LoRA adapts transformers, and this is a StaticEmbedding"):
            train(folder, "bi-encoder", tmp_path / "out", lora=LoraSettings(rank=2))

    def test_adapters_leave_out_the_second_layer_of_a_head(self, made, tmp_path):
        folder = made("distilbert", CROSS, **DISTILBERT)
        trained = train(folder, "cross-encoder", tmp_path / "out", lora=LoraSettings(rank=2))
        found = ours(trained, "cross-encoder")
        assert np.abs(found - ours(folder, "cross-encoder")).max() > 1e-6
        np.testing.assert_allclose(found, theirs(trained, "cross-encoder"), atol=1e-4)

    def test_fixed_word_vectors_are_told(self, tmp_path):
        words = ["why", "does", "the", "kettle", "sing", "a", "b", "longer", "text"]
        vectors = np.random.default_rng(0).normal(size=(len(words), 16)).astype(np.float32)
        modules = [WordEmbeddings(WhitespaceTokenizer(words), vectors), Pooling(16, "mean")]
        folder = saved(modules, tmp_path / "words")
        assert ours(folder, "bi-encoder").shape == (3,)
        with pytest.raises(SettingsError, match="there is nothing to train"):
            train(folder, "bi-encoder", tmp_path / "out")


class TestPrecision:
    @pytest.mark.parametrize("precision", ["bf16", pytest.param("int8", marks=INT8)])
    @pytest.mark.parametrize("dtype", [torch.bfloat16], ids=["bf16"])
    @pytest.mark.parametrize("architecture", ["cross-encoder", "bi-encoder"])
    def test_of_weights_stored_in_half_precision(self, made, precision, dtype, architecture):
        folder = made("bert", CROSS if architecture == "cross-encoder" else "AutoModel", dtype)
        found = ours(folder, architecture, precision=precision)
        np.testing.assert_allclose(found, ours(folder, architecture), atol=0.1)

    def test_of_two_routes(self, made, tmp_path):
        folder = routed(pooled(made("bert"), "cls"), pooled(made("roberta")), tmp_path / "routes")
        found = ours(folder, "bi-encoder", precision="bf16")
        np.testing.assert_allclose(found, theirs(folder, "bi-encoder"), atol=0.1)

    @pytest.mark.parametrize("architecture", ["cross-encoder", "bi-encoder"])
    @pytest.mark.parametrize(
        ("kind", "settings", "precision"),
        [
            pytest.param("t5", T5, "int8", marks=INT8),
            ("distilbert", DISTILBERT, "bf16"),
        ],
        ids=["t5 int8", "distilbert bf16"],
    )
    def test_one_that_a_model_cannot_run_in(self, made, kind, settings, precision, architecture):
        cls = CROSS if architecture == "cross-encoder" else "AutoModel"
        with pytest.raises(SettingsError, match=f"precision='{precision}'.*score it with precision='fp32'"):
            ours(made(kind, cls, **settings), architecture, precision=precision)


class TestModules:
    def test_texts_are_not_packed_for_a_module_that_looks_at_neighbours(self, made, tmp_path):
        torch.manual_seed(4)
        modules = [pooled(made("bert"))[0], CNN(16, 8, [1, 3]), Pooling(16, "mean")]
        folder = saved(modules, tmp_path / "cnn")
        scorer = open_scorer(RerankerWeights(str(folder), "bi-encoder"), "cpu")
        expected = theirs(folder, "bi-encoder")
        np.testing.assert_allclose(ours(folder, "bi-encoder"), expected, atol=1e-4)
        logits = scorer.logits([(QUESTION, text) for text in TEXTS]).detach().numpy()
        np.testing.assert_allclose(logits * COSINE_TEMPERATURE, expected, atol=1e-3)

    @pytest.mark.slow
    def test_characters_that_are_hashed_need_no_vocabulary(self, tmp_path, made):
        sizes = {**SIZES, "max_position_embeddings": 128, "num_hash_buckets": 128, "local_transformer_stride": 16}
        sizes |= {"downsampling_rate": 2, "upsampling_kernel_size": 2}
        torch.manual_seed(3)
        with quiet_loading():
            transformers.CanineForSequenceClassification(transformers.CanineConfig(**sizes)).save_pretrained(tmp_path)
            transformers.CanineTokenizer(model_max_length=128).save_pretrained(tmp_path)
        np.testing.assert_allclose(ours(tmp_path, "cross-encoder"), theirs(tmp_path, "cross-encoder"), atol=1e-4)

    @pytest.mark.parametrize(
        ("measure", "normalized", "told"), [("dot", False, 1), ("euclidean", False, 1), ("dot", True, 0)]
    )
    def test_another_similarity_than_the_cosine_is_told(self, made, tmp_path, caplog, measure, normalized, told):
        from sentence_transformers.sentence_transformer.modules import Normalize

        modules = [*pooled(made("bert")), *([Normalize()] if normalized else [])]
        folder = saved(modules, tmp_path / "model", similarity_fn_name=measure)
        ours(folder, "bi-encoder")
        assert caplog.text.count(f"compares its vectors by {measure}") == told


class TestTexts:
    @pytest.mark.parametrize("kind", ["roberta", "camembert"])
    @pytest.mark.parametrize("architecture", ["cross-encoder", "bi-encoder"])
    def test_a_pad_token_inside_one_has_no_position(self, made, kind, architecture, monkeypatch):
        monkeypatch.setitem(globals(), "TEXTS", ["a [PAD] [PAD] tea [PAD] cup and steam", "[PAD]", "tea"])
        folder = made(kind, CROSS if architecture == "cross-encoder" else "AutoModel")
        np.testing.assert_allclose(ours(folder, architecture), theirs(folder, architecture), atol=1e-5)

    @pytest.mark.parametrize("kind", ["bart", "words"])
    @pytest.mark.parametrize("architecture", ["cross-encoder", "bi-encoder"])
    def test_one_that_a_model_cannot_read(self, made, kind, architecture, tmp_path, monkeypatch):
        """BART counts end tokens, and a tokenizer may have no token for what it does not know."""
        cls = CROSS if architecture == "cross-encoder" else "AutoModel"
        if kind == "words":
            folder = shutil.copytree(made("bert", cls), tmp_path / "words")
            words = {word: row for row, word in enumerate(["[PAD]", "a", "b", "longer", "text", "tea"])}
            tokenizer = Tokenizer(WordLevel(words))
            tokenizer.pre_tokenizer = WhitespaceSplit()
            transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
        elif architecture == "cross-encoder":
            folder = made(kind, cls, **BART)
        else:
            return
        monkeypatch.setitem(globals(), "QUESTION", "tea")
        monkeypatch.setitem(globals(), "TEXTS", ["a text", "tea"])
        assert ours(folder, architecture).shape == (2,)
        monkeypatch.setitem(globals(), "TEXTS", ["steam [SEP] water", "tea"])
        with pytest.raises(CheckpointError, match=r"cannot be used \(.*one of these may hold no token, or a special"):
            ours(folder, architecture)
        if architecture == "bi-encoder":
            with pytest.raises(CheckpointError, match="cannot be used"):
                radio.Encoder(str(folder)).encode_passages(TEXTS)


class TestOutputs:
    LABELS = (
        (["relevant", "not relevant"], -1),
        (["entailment", "not_entailment"], -1),
        (["yes", "no"], -1),
        (["irrelevant", "relevant"], 1),
        (["LABEL_0", "LABEL_1"], 1),
        (["other", "notable"], 1),
    )

    @pytest.mark.parametrize(("labels", "sign"), LABELS, ids=["-".join(labels) for labels, _ in LABELS])
    def test_of_two_the_labels_say_which_is_relevant(self, made, tmp_path, labels, sign):
        folder = shutil.copytree(made("bert", CROSS, num_labels=2), tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        config.update(id2label=dict(enumerate(labels)), label2id={one: row for row, one in enumerate(labels)})
        (folder / "config.json").write_text(json.dumps(config))
        rows = theirs(folder, "cross-encoder")
        np.testing.assert_allclose(ours(folder, "cross-encoder"), (rows[:, 1] - rows[:, 0]) * sign, atol=1e-4)
        exported = radio.export(radio.Rerank(str(folder)), tmp_path / "out")
        np.testing.assert_allclose(theirs(exported, "cross-encoder"), (rows[:, 1] - rows[:, 0]) * sign, atol=1e-4)

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_config_without_architectures(self, made, tmp_path, count):
        folder = shutil.copytree(made("bert", CROSS, num_labels=count), tmp_path / "model")
        expected = ours(folder, "cross-encoder")
        config = json.loads((folder / "config.json").read_text())
        del config["architectures"]
        (folder / "config.json").write_text(json.dumps(config))
        forget_models()
        np.testing.assert_allclose(ours(folder, "cross-encoder"), expected, atol=1e-6)


class TestExports:
    @pytest.mark.parametrize("form", ["flagembedding", "onnx"])
    def test_a_prompt_that_a_format_cannot_hold(self, made, tmp_path, form):
        pytest.importorskip("onnxscript")
        folder = tmp_path / "model"
        with quiet_loading():
            model = CrossEncoder(
                str(made("bert", CROSS)),
                device="cpu",
                prompts={"rank": "does it answer ? "},
                default_prompt_name="rank",
            )
            model.save_pretrained(str(folder))
        rerank = radio.Rerank(str(folder))
        with pytest.raises(SettingsError, match=r"cannot hold the prompt 'does it answer \? '"):
            radio.export(rerank, tmp_path / "out", form)
        assert not (tmp_path / "out").exists()
        np.testing.assert_allclose(
            theirs(radio.export(rerank, tmp_path / "out"), "cross-encoder"), ours(folder, "cross-encoder"), atol=1e-4
        )

    @pytest.mark.slow
    def test_a_graph_of_weights_in_half_precision(self, made, tmp_path):
        pytest.importorskip("onnxscript")
        runtime = pytest.importorskip("onnxruntime")
        folder = made("bert", CROSS, torch.bfloat16)
        out = radio.export(radio.Rerank(str(folder)), tmp_path / "out", "onnx")
        tokenizer = transformers.AutoTokenizer.from_pretrained(out)
        inputs = tokenizer([QUESTION] * 3, TEXTS, padding=True, return_tensors="np")
        (scores,) = runtime.InferenceSession(out / "model.onnx").run(["scores"], dict(inputs))
        np.testing.assert_allclose(scores, ours(folder, "cross-encoder"), atol=0.05)

    def test_a_model_that_cannot_be_written_as_a_graph(self, made, tmp_path, monkeypatch):
        pytest.importorskip("onnxscript")

        def fail(*args, **settings):
            raise torch.onnx.errors.OnnxExporterError("no such operator")

        monkeypatch.setattr(torch.onnx, "export", fail)
        rerank = radio.Rerank(str(made("bert", CROSS)))
        with pytest.raises(SettingsError, match=r"cannot hold a BertForSequenceClassification.*no such operator"):
            radio.export(rerank, tmp_path / "out", "onnx")
        assert not (tmp_path / "out").exists()
