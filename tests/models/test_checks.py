"""What a model is, looked at before it is used. All weights here are tiny and random."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import radio_dspy as radio
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.models.bi_encoder import COSINE_TEMPERATURE, PassageVectors
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.checks import position_limit
from radio_dspy.models.encoder import open_sentence_transformer, quiet_loading
from radio_dspy.models.shared import forget_models
from radio_dspy.models.tensors import not_finite
from radio_dspy.models.weights import RerankerWeights
from tests.conftest import ENCODER

QUESTION = "why does the kettle sing?"
TEXTS = ["Bubbles of steam collapse.", "A kettle of tea, and a longer text about cups.", "no"]
LONG = "steam and water and a cup of tea " * 120
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(autouse=True)
def _nothing_kept():
    yield
    forget_models()


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers.AutoTokenizer.from_pretrained(radio.weights(ENCODER)).save_pretrained(folder)
    return folder


@pytest.fixture
def made(tmp_path, tokenizer_folder):
    """Make a tiny random model of a kind, with a tokenizer."""

    def make(kind, cls="AutoModelForSequenceClassification", name="model", tokens=True, **settings):
        folder = tmp_path / name
        torch.manual_seed(3)
        config = transformers.AutoConfig.for_model(
            kind, **{**SIZES, "vocab_size": 30522, "max_position_embeddings": 64, **settings}
        )
        model = getattr(transformers, cls).from_config(config)
        for one in model.parameters():
            torch.nn.init.normal_(one, std=0.3)
        with quiet_loading():
            model.save_pretrained(folder)
        if tokens:
            shutil.copytree(tokenizer_folder, folder, dirs_exist_ok=True)
        return folder

    return make


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder, change):
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def scores_of(folder, architecture="cross-encoder", texts=TEXTS, **settings):
    """Scores, after it was seen that the logits that are trained on are the same."""
    scorer = open_scorer(RerankerWeights(str(folder), architecture, new_head=True, **settings), "cpu")
    pairs = [(QUESTION, text) for text in texts]
    scores, logits = scorer.score(pairs), scorer.logits(pairs)
    assert logits.requires_grad
    found = logits.detach().numpy() * (COSINE_TEMPERATURE if architecture == "bi-encoder" else 1)
    np.testing.assert_allclose(scores, found, atol=1e-4)
    return scores


def lacking(*parts):
    return lambda tensors: {key: one for key, one in tensors.items() if not any(part in key for part in parts)}


class TestMissingTensors:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda tensors: {f"wrong.{key}": one for key, one in tensors.items()}, "18|19|2[0-9]"),
            (lacking("intermediate.dense.weight"), r"1 tensors.*layer\.0\.intermediate\.dense\.weight"),
            (lacking("word_embeddings"), "word_embeddings"),
        ],
        ids=["all renamed", "one matrix", "the embeddings"],
    )
    @pytest.mark.parametrize("architecture", ["cross-encoder", "bi-encoder"])
    def test_they_are_an_error_and_never_drawn(self, made, change, named, architecture):
        folder = made(
            "bert", "AutoModel" if architecture == "bi-encoder" else "AutoModelForSequenceClassification", num_labels=1
        )
        change_tensors(folder, change)
        with pytest.raises(CheckpointError, match=named):
            scores_of(folder, architecture)

    def test_a_config_of_more_layers_than_the_weights_have(self, made):
        folder = made("bert", "AutoModel")
        change_json(folder / "config.json", num_hidden_layers=3)
        with pytest.raises(CheckpointError, match=r"32 tensors of BertModel.*layer\.1"):
            radio.Encoder(str(folder)).encode_queries([QUESTION])

    @pytest.mark.parametrize("lost", ["classifier.weight", "classifier.bias", "pooler.dense"])
    def test_a_half_head_of_a_trained_cross_encoder(self, made, lost):
        folder = made("bert", num_labels=1)
        change_tensors(folder, lacking(lost))
        with pytest.raises(CheckpointError, match=lost):
            scores_of(folder)

    @pytest.mark.parametrize("lost", ["classifier.weight", "classifier.bias", "pooler.dense"])
    def test_a_half_head_whose_config_does_not_say_that_it_is_one(self, made, lost):
        folder = made("bert", num_labels=1)
        change_json(folder / "config.json", architectures=None)
        scores_of(folder)
        change_tensors(folder, lacking(lost))
        with pytest.raises(CheckpointError, match=lost):
            scores_of(folder)

    def test_a_part_of_a_head_that_masked_lms_have_too_is_no_head(self, made, caplog):
        folder = made("modernbert", "AutoModelForMaskedLM", pad_token_id=0)
        assert np.isfinite(scores_of(folder)).all()
        assert "A new one was drawn" in caplog.text

    @pytest.mark.parametrize("tied", [True, False])
    def test_the_head_of_a_causal_lm_that_scores(self, made, tmp_path, tied):
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.cross_encoder.modules import LogitScore

        sizes = {"num_key_value_heads": 1, "pad_token_id": 0, "tie_word_embeddings": tied}
        with quiet_loading():
            transformer = Transformer(
                str(made("qwen2", "AutoModelForCausalLM", **sizes)), transformer_task="text-generation"
            )
            model = CrossEncoder(
                modules=[transformer, LogitScore(true_token_id=2748, false_token_id=2053)], device="cpu"
            )
            model.save_pretrained(str(tmp_path / "causal"))
        assert np.isfinite(scores_of(tmp_path / "causal")).all()
        if not tied:
            change_tensors(tmp_path / "causal", lacking("lm_head"))
            with pytest.raises(CheckpointError, match=r"1 tensors of Qwen2ForCausalLM.*lm_head"):
                scores_of(tmp_path / "causal")

    @pytest.mark.parametrize("cls", ["AutoModel", "AutoModelForMaskedLM"])
    def test_an_encoder_gets_a_new_head_and_is_told(self, made, cls, caplog):
        folder = made("bert", cls)
        assert scores_of(folder).tolist() == scores_of(folder).tolist()
        assert "A new one was drawn" in caplog.text

    def test_a_pooler_that_nothing_reads_may_be_missing(self, made):
        folder = made("bert", "AutoModel")
        before = scores_of(folder, "bi-encoder")
        change_tensors(folder, lacking("pooler"))
        assert scores_of(folder, "bi-encoder").tolist() == before.tolist()

    def test_tensors_that_nothing_reads_do_no_harm(self, made):
        folder = made("bert", "AutoModel")
        before = scores_of(folder, "bi-encoder")
        change_tensors(folder, lambda tensors: {**tensors, "cls.predictions.bias": torch.ones(3)})
        assert scores_of(folder, "bi-encoder").tolist() == before.tolist()

    @pytest.mark.parametrize(
        ("kind", "cls", "architecture", "settings", "layers"),
        [
            ("bert", "AutoModel", "bi-encoder", {}, 1),
            ("bert", "AutoModel", "bi-encoder", {}, 0),
            ("bert", "AutoModelForMaskedLM", "bi-encoder", {}, 1),
            ("bert", "AutoModelForSequenceClassification", "cross-encoder", {"num_labels": 1}, 1),
            ("bert", "AutoModelForSequenceClassification", "cross-encoder", {"num_labels": 1}, 0),
            ("modernbert", "AutoModel", "bi-encoder", {"pad_token_id": 0}, 1),
            ("qwen2", "AutoModel", "bi-encoder", {"num_key_value_heads": 1, "pad_token_id": 0}, 1),
            ("t5", "AutoModelForSeq2SeqLM", "bi-encoder", {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2}, 1),
        ],
        ids=lambda one: str(one)[:20],
    )
    def test_layers_that_the_config_does_not_name(self, made, kind, cls, architecture, settings, layers):
        folder = made(kind, cls, **settings, num_hidden_layers=2)
        scores_of(folder, architecture)
        config = json.loads((folder / "config.json").read_text())
        change_json(folder / "config.json", **{"num_layers" if kind == "t5" else "num_hidden_layers": layers})
        if config.get("layer_types"):  # one for each
            change_json(folder / "config.json", layer_types=config["layer_types"][:layers])
        forget_models()
        with pytest.raises(CheckpointError, match=r"belong to layers that .* does not have"):
            scores_of(folder, architecture)

    def test_what_published_weights_hold_beside_their_layers(self, made):
        folder = made("bert", "AutoModel")
        before = scores_of(folder, "bi-encoder")
        extra = [
            "cls.predictions.decoder.weight",
            "lm_head.weight",
            "embeddings.position_ids",
            "decoder.layer.7.weight",
        ]
        extra += ["encoder.layer.0.attention.inv_freq", "encoder.layer.0.attn.masked_bias"]
        change_tensors(folder, lambda tensors: {**tensors, **{one: torch.ones(3) for one in extra}})
        forget_models()
        assert scores_of(folder, "bi-encoder").tolist() == before.tolist()

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors: {"linear.weight": tensors["linear.weight"]},
            lambda tensors: {key: one[:3] for key, one in tensors.items()},
        ],
        ids=["missing", "another shape"],
    )
    def test_those_of_a_dense_module(self, made, tmp_path, change):
        folder = with_modules(made("bert", "AutoModel"), tmp_path / "dense")
        change_tensors(folder / "2_Dense", change)
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            radio.Encoder(str(folder)).encode_queries([QUESTION])

    def test_other_threads_load_as_ever_meanwhile(self):
        import threading

        from radio_dspy.models.tensors import loading_reports

        found = []
        with loading_reports() as reports:
            config = transformers.BertConfig(**SIZES, vocab_size=10)
            thread = threading.Thread(
                target=lambda: found.append(
                    transformers.BertModel.from_pretrained(None, config=config, state_dict={"x": torch.ones(1)})
                )
            )
            thread.start()
            thread.join()
        assert isinstance(found[0], transformers.BertModel)
        assert reports == []
        assert transformers.PreTrainedModel.from_pretrained.__func__.__qualname__.startswith("PreTrainedModel")


def with_modules(folder, target, **settings):
    """A sentence-transformers model over a folder: mean, a dense layer, and what else is set."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(5)
    with quiet_loading():
        modules = [Transformer(str(folder)), Pooling(16, "mean"), Dense(16, 8)]
        SentenceTransformer(modules=modules, device="cpu", **settings).save_pretrained(str(target))
    return target


class TestNumbers:
    """What a model gives is looked at when it is loaded, before anything is indexed or trained with it."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("part", ["query.weight", "key.bias", "LayerNorm.weight", "word_embeddings.weight"])
    @pytest.mark.parametrize("architecture", ["cross-encoder", "bi-encoder"])
    def test_of_every_tensor_also_of_rows_that_no_test_text_reads(self, made, architecture, part, value):
        folder = made("bert", "AutoModel" if architecture == "bi-encoder" else "AutoModelForSequenceClassification")

        def one_odd(tensors):
            name = next(one for one in tensors if one.endswith(part))
            tensors[name].view(-1)[-1] = value
            return tensors

        change_tensors(folder, one_odd)
        with pytest.raises(CheckpointError, match=rf"the tensor .*{part} holds what is no finite number"):
            scores_of(folder, architecture)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_large_numbers_are_numbers(self, dtype):
        large = torch.full((1000, 1000), torch.finfo(dtype).max, dtype=dtype)
        assert not_finite({"a": large, "b": torch.zeros(0, dtype=dtype), "c": torch.ones(3, dtype=torch.int64)}) is None
        large[-1, -1] = float("inf")
        assert not_finite({"a": large}) == "a"

    @pytest.mark.parametrize(
        ("change", "message"),
        [(lambda one: one * float("nan"), "no finite number"), (torch.zeros_like, "vectors that are zero")],
        ids=["NaN", "zeros"],
    )
    def test_of_an_encoder(self, made, change, message):
        folder = made("bert", "AutoModel")
        change_tensors(folder, lambda tensors: {key: change(one) for key, one in tensors.items()})
        for read in (lambda: scores_of(folder, "bi-encoder"), lambda: radio.Encoder(str(folder)).encode_queries(["a"])):
            with pytest.raises(CheckpointError, match=message):
                read()

    def test_of_a_cross_encoder(self, made):
        folder = made("bert", num_labels=1)
        change_tensors(
            folder, lambda tensors: {**tensors, "classifier.bias": tensors["classifier.bias"] * float("inf")}
        )
        with pytest.raises(CheckpointError, match="no finite number"):
            scores_of(folder)

    def test_weights_that_are_too_large_for_a_precision(self, made):
        folder = made("bert", "AutoModel")
        change_tensors(
            folder, lambda tensors: {key: one * 3e5 if "intermediate" in key else one for key, one in tensors.items()}
        )
        assert np.isfinite(scores_of(folder, "bi-encoder")).all()
        with pytest.raises(SettingsError, match=r"does not run with precision='fp16' .*no finite number"):
            radio.Rerank(str(folder), "bi-encoder", precision="fp16")(QUESTION, TEXTS)

    def test_two_sides_of_different_dimensions(self, made):
        rerank = radio.Rerank(str(made("bert", "AutoModel")), "bi-encoder")
        other = made("bert", "AutoModel", "other", hidden_size=32)
        rerank.weights = rerank.weights.with_checkpoint(rerank.weights.checkpoint, other)
        with pytest.raises(CheckpointError, match="vectors have 32 dimensions, those of queries 16"):
            rerank(QUESTION, TEXTS)

    @pytest.mark.parametrize(
        ("vectors", "message"),
        [
            (np.ones((1, 16)), r"3 texts, but vectors of shape \(1, 16\)"),
            (np.full((3, 16), np.nan), "no finite number"),
            (np.ones((3, 8)), "has 8 dimensions, the query side gives 16"),
        ],
        ids=["too few", "NaN", "dimensions"],
    )
    def test_vectors_of_passages_that_are_given(self, made, vectors, message):
        weights = RerankerWeights(str(made("bert", "AutoModel")), "bi-encoder")

        def score():
            frozen = PassageVectors(TEXTS, vectors)
            return open_scorer(weights, "cpu", frozen=frozen).logits([(QUESTION, TEXTS[0])])

        with pytest.raises(radio.errors.DataError, match=message):
            score()

    @pytest.mark.parametrize("length", [-5, 0, 1, 2])
    def test_a_bound_that_leaves_no_word(self, made, tmp_path, length):
        folder = with_modules(made("bert", "AutoModel"), tmp_path / "bounded")
        change_json(folder / "sentence_bert_config.json", max_seq_length=length)
        with pytest.raises(CheckpointError, match=f"max_length={length} it would read no word"):
            radio.Encoder(str(folder)).encode_queries([QUESTION])
        change_json(folder / "sentence_bert_config.json", max_seq_length=3)
        assert radio.Encoder(str(folder)).window == 3

    def test_a_dimension_below_one(self, made, tmp_path):
        folder = with_modules(made("bert", "AutoModel"), tmp_path / "cut", truncate_dim=-3)
        with pytest.raises(CheckpointError, match="truncate_dim is -3"):
            radio.Encoder(str(folder)).encode_passages([])

    @pytest.mark.parametrize("length", [1, 3, 4])
    def test_a_bound_that_leaves_no_word_of_each_text(self, made, tmp_path, length):
        folder = shutil.copytree(made("bert", "AutoModelForSequenceClassification"), tmp_path / "bounded")
        change_json(folder / "tokenizer_config.json", model_max_length=length)
        with pytest.raises(CheckpointError, match="no word of each text; mend model_max_length in its tokenizer_conf"):
            scores_of(folder)
        change_json(folder / "tokenizer_config.json", model_max_length=5)
        assert np.isfinite(scores_of(folder)).all()

    @pytest.mark.parametrize("value", ["64", 2.5, True])
    def test_settings_of_another_type(self, made, value):
        name = str(made("bert", "AutoModel"))
        for make in (
            lambda: radio.Encoder(name, max_length=value),
            lambda: radio.Encoder(name, batch_size=value),
            lambda: radio.Rerank(name, max_length=value),
        ):
            with pytest.raises(SettingsError, match="at least"):
                make()


class TestOutputs:
    KINDS = (
        ("bert", {}),
        ("roberta", {"pad_token_id": 1}),
        ("distilbert", {"dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2}),
        ("qwen2", {"num_key_value_heads": 1}),
    )

    @pytest.mark.parametrize(("kind", "settings"), KINDS, ids=[kind for kind, _ in KINDS])
    def test_of_two_the_score_is_the_second_minus_the_first(self, made, kind, settings):
        folder = made(kind, num_labels=2, **settings)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            rows = [model(**tokenizer(QUESTION, text, return_tensors="pt")).logits[0] for text in TEXTS]
        expected = [float(second - first) for first, second in rows]
        np.testing.assert_allclose(scores_of(folder), expected, atol=1e-4)

    @pytest.mark.parametrize("count", [3, 5])
    def test_more_than_two_are_an_error_at_once(self, made, count, monkeypatch):
        folder = made("bert", num_labels=count)
        monkeypatch.setattr("sentence_transformers.CrossEncoder.__init__", lambda *_, **__: pytest.fail("was loaded"))
        with pytest.raises(CheckpointError, match=f"has {count} outputs"):
            radio.Rerank(str(folder))(QUESTION, TEXTS)

    def test_a_config_that_does_not_say_how_many(self, made):
        """transformers takes two, then; the tensors know better."""
        folder = made("bert", num_labels=1)
        before = scores_of(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({key: one for key, one in config.items() if key not in ("id2label", "label2id", "num_labels")})
        )
        assert scores_of(folder).tolist() == before.tolist()

    def test_two_of_a_dense_head(self, made, tmp_path):
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Dense, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        with quiet_loading():
            dense = Dense(16, 2, activation_function=torch.nn.Identity(), module_output_name="scores")
            model = CrossEncoder(modules=[Transformer(str(made("bert", "AutoModel"))), Pooling(16, "cls"), dense])
            model.save_pretrained(str(tmp_path / "dense"))
        found = model.predict([(QUESTION, text) for text in TEXTS], activation_fn=torch.nn.Identity())
        np.testing.assert_allclose(scores_of(tmp_path / "dense"), found[:, 1] - found[:, 0], atol=1e-5)


class TestPadding:
    def test_another_pad_token_in_the_config_than_in_the_tokenizer(self, made):
        """The head looks for the last token that is no padding."""
        folder = made("qwen2", num_labels=1, num_key_value_heads=1, pad_token_id=77)
        np.testing.assert_allclose(scores_of(folder), [scores_of(folder, texts=[text])[0] for text in TEXTS], atol=1e-4)

    @pytest.mark.parametrize("cls", ["AutoModelForSequenceClassification", "AutoModel"])
    def test_an_end_token_pads_where_there_is_no_other(self, made, cls):
        folder = made("qwen2", cls, num_labels=1, num_key_value_heads=1, pad_token_id=None)
        without_pad(folder, eos_token="[unused5]")
        assert np.isfinite(scores_of(folder, "bi-encoder" if cls == "AutoModel" else "cross-encoder")).all()

    def test_neither_is_an_error_of_our_own(self, made):
        folder = made("qwen2", num_labels=1, num_key_value_heads=1, pad_token_id=None)
        without_pad(folder, pad_token=None, eos_token=None)
        with pytest.raises(CheckpointError, match="neither a pad token nor an end token"):
            scores_of(folder)


def without_pad(folder, **more):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    kept = {key: one for key, one in config.items() if key not in ("pad_token", "added_tokens_decoder")}
    # A class without tokens of its own: BERT's would bring [PAD] back.
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**kept, "tokenizer_class": "PreTrainedTokenizerFast", **more})
    )


class TestPositions:
    KINDS = (
        ("bert", {}, 64),
        ("roberta", {"pad_token_id": 1}, 62),
        ("xlm-roberta", {"pad_token_id": 1}, 62),
        ("mpnet", {"pad_token_id": 1}, 62),
        ("opt", {"word_embed_proj_dim": 16, "ffn_dim": 24}, 64),
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}, 64),
    )

    @pytest.mark.parametrize(("kind", "settings", "limit"), KINDS, ids=[kind for kind, *_ in KINDS])
    @pytest.mark.parametrize("max_length", [None, 65, 4000])
    def test_no_more_is_read_than_there_are_positions(self, made, kind, settings, limit, max_length, caplog):
        folder = made(kind, "AutoModel", **settings)
        change_json(folder / "tokenizer_config.json", model_max_length=int(1e30))
        encoder = radio.Encoder(str(folder), max_length=max_length)
        with caplog.at_level(logging.WARNING):
            assert encoder.encode_passages([LONG, "short"]).shape[0] == 2
        assert encoder.window == limit
        assert caplog.text.count(f"has positions for {limit} tokens") == (max_length is not None)
        assert scores_of(folder, "bi-encoder", [LONG, "short"], max_length=max_length).shape == (2,)

    def test_a_smaller_bound_is_kept(self, made):
        folder = made("bert", "AutoModel")
        assert radio.Encoder(str(folder), max_length=20).window == 20

    def test_none_where_they_are_computed(self, made):
        folder = made("t5", "AutoModel", d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
        config = json.loads((folder / "config.json").read_text())
        config.pop("max_position_embeddings")
        (folder / "config.json").write_text(json.dumps(config))
        change_json(folder / "tokenizer_config.json", model_max_length=int(1e30))
        assert radio.Encoder(str(folder)).window is None
        assert position_limit(open_sentence_transformer(str(folder), "cpu", None)[0].model) is None
        assert radio.Encoder(str(folder)).encode_passages([LONG]).shape == (1, 16)


class TestTokenizers:
    @pytest.mark.parametrize("cls", ["AutoModel", "AutoModelForSequenceClassification"])
    def test_none_at_all(self, made, cls):
        folder = made("bert", cls, tokens=False, num_labels=1)
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            scores_of(folder, "bi-encoder" if cls == "AutoModel" else "cross-encoder")

    @pytest.mark.parametrize("cls", ["AutoModel", "AutoModelForSequenceClassification"])
    def test_one_of_other_weights(self, made, cls):
        folder = made("bert", cls, vocab_size=500, num_labels=1)
        with pytest.raises(CheckpointError, match=r"tokens up to number 30521.*rows for 500"):
            scores_of(folder, "bi-encoder" if cls == "AutoModel" else "cross-encoder")

    def test_more_rows_than_tokens_are_usual(self, made):
        assert scores_of(made("bert", "AutoModel", vocab_size=30600), "bi-encoder").shape == (3,)

    def test_a_special_token_that_no_text_holds_may_lie_beyond(self, made):
        folder = made("bert", "AutoModel")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"extra_special_tokens": ["<|late|>"]})
        tokenizer.save_pretrained(folder)
        assert scores_of(folder, "bi-encoder").shape == (3,)


class TestKinds:
    def test_a_cross_encoder_gives_no_vectors(self, made):
        with pytest.raises(CheckpointError, match="is a cross-encoder"):
            radio.Encoder(str(made("bert", num_labels=1))).encode_queries([QUESTION])

    def test_no_word_of_pooling_is_told(self, made, caplog):
        radio.Encoder(str(made("bert", "AutoModel"))).encode_queries([QUESTION])
        assert "says nothing of pooling" in caplog.text

    def test_vectors_cut_to_fewer_dimensions(self, made, tmp_path):
        folder = with_modules(made("bert", "AutoModel"), tmp_path / "cut", truncate_dim=5)
        vectors = radio.Encoder(str(folder)).encode_passages(TEXTS)
        assert vectors.shape == (3, 5)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        scores_of(folder, "bi-encoder")  # logits alike
        with pytest.raises(SettingsError, match=r"cannot cut vectors to 5|cannot hold a model"):
            radio.export(radio.Rerank(str(folder), "bi-encoder"), tmp_path / "flag", "flagembedding")

    def test_static_vectors(self, tokenizer_folder, tmp_path):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
        from tokenizers import Tokenizer

        torch.manual_seed(2)
        static = StaticEmbedding(Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json")), embedding_dim=6)
        SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(tmp_path / "static"))
        encoder = radio.Encoder(str(tmp_path / "static"), max_length=50)
        assert encoder.encode_passages([*TEXTS, LONG]).shape == (4, 6)
        assert encoder.window is None
        assert encoder.count_tokens("why not") == 2

    def test_static_vectors_of_another_tokenizer(self, tokenizer_folder, tmp_path):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
        static = StaticEmbedding(tokenizer, embedding_weights=np.ones((40, 6), dtype=np.float32))
        SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(tmp_path / "static"))
        with pytest.raises(CheckpointError, match=r"tokens up to number 30521.*rows for 40"):
            radio.Encoder(str(tmp_path / "static")).encode_queries([QUESTION])

    @pytest.mark.parametrize("name", ["document", "passage", "corpus"])
    def test_prompts_that_the_model_declares(self, made, tmp_path, name):
        folder = with_modules(
            made("bert", "AutoModel"), tmp_path / "prompts", prompts={"query": "ask : ", name: "read : "}
        )
        encoder, plain = radio.Encoder(str(folder)), radio.Encoder(str(folder), query_prefix="", passage_prefix="")
        np.testing.assert_allclose(
            encoder.encode_passages(TEXTS), plain.encode_passages([f"read : {one}" for one in TEXTS]), atol=1e-5
        )
        np.testing.assert_allclose(
            encoder.encode_queries([QUESTION]), plain.encode_queries([f"ask : {QUESTION}"]), atol=1e-5
        )
        np.testing.assert_allclose(
            scores_of(folder, "bi-encoder"),
            encoder.encode_passages(TEXTS) @ encoder.encode_queries([QUESTION])[0],
            atol=1e-5,
        )
