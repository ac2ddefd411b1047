"""Packed batches: the numbers of padded ones, in scores and in gradients, for every kind of encoder that packs."""

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import radio_dspy as radio
from radio_dspy.core.rankings import Ranking
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.encoder import open_sentence_transformer
from radio_dspy.models.files import weights
from radio_dspy.models.packing import ATTENTION, PACKED_MODELS, Packing, enable_packing, pack
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.rerankers.rerank import rank_with
from radio_dspy.retrievers.requests import rank_requests

ENCODER = weights("all-MiniLM-L6-v2")
TEXTS = ["yeast", "Ice floats on water, since it is lighter.", "Why did the dough not rise? " * 12, "", "a b c d e"]
PAIRS = [(query, passage) for query in ("why?", TEXTS[2]) for passage in TEXTS]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a tiny random model of a kind, with the tokenizer of all-MiniLM."""

    def make(kind: str, task: str) -> str:
        folder = tmp_path_factory.mktemp(f"{kind}-{task}")
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        config = transformers.AutoConfig.for_model(
            kind, vocab_size=30522, max_position_embeddings=300, type_vocab_size=2, num_labels=1, **size
        )
        make_model = transformers.AutoModel if task == "encode" else transformers.AutoModelForSequenceClassification
        torch.manual_seed(1)
        model = make_model.from_config(config)
        for one in model.parameters():  # fresh weights tell texts hardly apart
            torch.nn.init.normal_(one, std=0.2)
        model.save_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(ENCODER)
        tokenizer.model_max_length = 256
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.mark.parametrize("kind", sorted(PACKED_MODELS))
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_vectors_are_those_of_padded_batches(small, kind, pooling):
    transformer = Transformer(small(kind, "encode"))
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), pooling)])
    padded = model.encode(TEXTS)
    assert enable_packing(model) == 1
    assert "packing" in model.preprocess(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), padded, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(PACKED_MODELS))
def test_scores_of_pairs_are_those_of_padded_batches(small, kind):
    model = CrossEncoder(small(kind, "classify"), activation_fn=torch.nn.Identity())
    padded = model.predict(PAIRS)
    assert np.ptp(padded) > 1e-3
    assert enable_packing(model) == 1
    np.testing.assert_allclose(model.predict(PAIRS), padded, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bi-encoder", "cross-encoder"])
def test_gradients_are_those_of_padded_batches(architecture):
    found = []
    for packed in (True, False):
        scorer = open_scorer(RerankerWeights(ENCODER, architecture, new_head=True), "cpu")
        if not packed:
            scorer.module[0].unpad_inputs = False
        logits = scorer.logits(PAIRS)
        torch.nn.functional.cross_entropy(logits.view(2, -1), torch.tensor([1, 2])).backward()
        found.append({name: one.grad for name, one in scorer.module.named_parameters() if one.grad is not None})
    packed, padded = found
    assert packed.keys() == padded.keys()
    for name in packed:
        torch.testing.assert_close(packed[name], padded[name], rtol=1e-3, atol=1e-5, msg=name)


def test_at_least_nine_tenths_of_what_attention_computes_is_no_padding():
    generator = np.random.default_rng(5)
    lengths = generator.lognormal(3, 0.7, 500).astype(int) + 3
    computed = sum(one.rows.numel() for one in Packing(lengths.tolist()).buckets)
    assert lengths.sum() / computed > 0.9  # and every other layer computes lengths.sum()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_every_token_comes_back_to_its_place(lengths):
    packing = Packing(lengths)
    tokens = torch.arange(sum(lengths))
    parts = [tokens[one.rows] if one.real is None else tokens[one.rows][one.real] for one in packing.buckets]
    assert torch.cat([one.flatten() for one in parts])[packing.places].tolist() == tokens.tolist()
    texts = torch.cat([one.texts for one in packing.buckets])
    assert texts[packing.text_places].tolist() == list(range(len(lengths)))
    row = pack([{"input_ids": [5] * length} for length in lengths])
    assert row["cu_seq_lens_q"].diff().tolist() == lengths
    assert packing.starts.tolist() == row["cu_seq_lens_q"][:-1].tolist()


def test_a_model_of_another_kind_pads(small):
    folder = small("distilbert", "encode")
    model = SentenceTransformer(modules=[Transformer(folder), Pooling(32)])
    assert enable_packing(model) == 0
    assert "attention_mask" in model.preprocess(TEXTS)


def test_padding_can_be_asked_for_and_nothing_of_it_is_saved(tmp_path):
    model = open_sentence_transformer(ENCODER, "cpu", None)
    packed = model.encode(TEXTS)
    model[0].unpad_inputs = False
    assert "attention_mask" in model.preprocess(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), packed, atol=1e-6)
    model.save(str(tmp_path / "saved"), create_model_card=False)
    assert ATTENTION not in (tmp_path / "saved" / "config.json").read_text()
    assert SentenceTransformer(str(tmp_path / "saved"))[0].config._attn_implementation == "sdpa"


def test_dropout_is_drawn_while_training_only():
    scorer = open_scorer(RerankerWeights(ENCODER, "bi-encoder"), "cpu")
    scorer.module.train()
    assert not torch.equal(scorer.logits(PAIRS), scorer.logits(PAIRS))
    scorer.module.eval()
    torch.testing.assert_close(scorer.logits(PAIRS), scorer.logits(PAIRS), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bi-encoder", "cross-encoder"])
def test_rankings_of_the_demo_set_are_those_of_padded_batches(architecture):
    """The whole way of scoring: packed rows and first tokens alone against what the library computed before them."""
    data = radio.datasets.demo()
    retriever = radio.FaissRetriever.build(data.passages, "all-MiniLM-L6-v2")
    requests = rank_requests(data.test[::4], retriever, 20)  # some of every topic
    model = RerankerWeights(ENCODER, architecture, new_head=True)
    packed = rank_with(model, requests, "cpu")
    module = open_scorer(model, "cpu").module.eval()
    module[0].unpad_inputs = False
    for request, ranking in zip(requests, packed, strict=True):
        texts = [one.contents for one in request.candidates]
        if architecture == "cross-encoder":
            scores = module.predict([(request.query, text) for text in texts], batch_size=32)
        else:
            scores = module.encode(texts, normalize_embeddings=True) @ module.encode(
                request.query, normalize_embeddings=True
            )
        assert ranking.ids == Ranking.from_scores(request.query, request.candidates, scores.tolist()).ids
