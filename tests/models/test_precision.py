"""Scores in fewer bits: close to those in fp32, in the same order where passages do not lie close."""

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

import radio_dspy as radio
from radio_dspy.core.errors import SettingsError
from radio_dspy.models.bi_encoder import BiEncoderScorer
from radio_dspy.models.cache import score_lists
from radio_dspy.models.cross_encoder import CrossEncoderScorer
from radio_dspy.models.files import weights
from radio_dspy.models.precision import Int8Linear, lower_precision
from radio_dspy.models.weights import RerankerWeights

ENCODER = "all-MiniLM-L6-v2"
VNNI = torch.cpu.get_capabilities().get("avx512_vnni") or torch.cpu.get_capabilities().get("avx_vnni")
LOWER = ["bf16", pytest.param("int8", marks=pytest.mark.skipif(not VNNI, reason="needs a processor with VNNI"))]


@pytest.fixture(scope="module")
def lists():
    passages = [one.contents for one in radio.datasets.demo().passages[:20]]
    return [(one.question, passages) for one in radio.datasets.demo().train[:5]]


@pytest.mark.parametrize("precision", LOWER)
def test_a_bi_encoder_ranks_nearly_as_in_fp32(lists, precision):
    model = RerankerWeights(ENCODER, "bi-encoder")
    full, lower = (np.stack(score_lists(model, lists, "cpu", one)) for one in ("fp32", precision))
    assert 0 < np.abs(full - lower).max() < 0.06
    assert all(np.corrcoef(one, two)[0, 1] > 0.99 for one, two in zip(full, lower, strict=True))


@pytest.mark.parametrize("precision", LOWER)
def test_a_cross_encoder_keeps_its_head_and_scores_alike(lists, precision):
    model = CrossEncoder(weights(ENCODER), num_labels=1, activation_fn=torch.nn.Identity(), device="cpu")
    pairs = [(query, text) for query, texts in lists[:2] for text in texts]
    torch.nn.init.normal_(model[0].model.classifier.weight, std=1.0)
    padded = model.predict(pairs)
    lower_precision(model, precision)
    lower = model.predict(pairs)
    assert lower.dtype == np.float32
    assert len(set(lower.tolist())) > 0.98 * len(set(padded.tolist()))  # the head stays fine-grained
    assert np.corrcoef(padded, lower)[0, 1] > (0.999 if precision == "bf16" else 0.97)
    assert model[0].model.classifier.weight.dtype == torch.float32


@pytest.mark.parametrize(("precision", "characters", "passes"), [("fp32", 50, 2), ("bf16", 50, 1), ("bf16", 2000, 2)])
def test_fewer_bits_take_more_short_texts_at_a_time(precision, characters, passes):
    scorer = CrossEncoderScorer(RerankerWeights(ENCODER, max_length=16), "cpu", precision)
    assert _passes(scorer, [f"{number} " + "ice " * (characters // 4) for number in range(40)]) == passes


def _passes(scorer, texts):
    calls = []
    scorer.module[0].register_forward_hook(lambda *_: calls.append(1))
    assert scorer.score([("why?", text) for text in texts]).shape == (len(texts),)
    return len(calls)


def test_a_model_that_pads_keeps_to_small_batches():
    scorer = CrossEncoderScorer(RerankerWeights(ENCODER, max_length=16), "cpu", "bf16")
    scorer.module[0].unpad_inputs = False
    assert _passes(scorer, ["ice"] * 40) == 2


def test_so_does_a_bi_encoder_in_fp32_only():
    texts = [f"ice {number}" for number in range(40)]
    for precision, passes in (("fp32", 2), ("bf16", 1)):
        assert _passes(BiEncoderScorer(RerankerWeights(ENCODER), "cpu", private=True, precision=precision), texts) == (
            passes + 1  # the query
        )


@pytest.mark.skipif(not VNNI, reason="needs a processor with VNNI")
def test_each_token_is_rounded_by_its_own_largest_value_of_either_sign():
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 8)
    inputs = torch.randn(4, 64)
    inputs[0, 0], inputs[1], inputs[2] = -300.0, -inputs[1].abs(), 0.0
    inputs[3] /= 1000
    with torch.inference_mode():
        exact, rounded = linear(inputs), Int8Linear(linear)(inputs)
    for row in range(4):
        step = float(inputs[row].abs().max()) / 127
        assert float((exact[row] - rounded[row]).abs().max()) < 2 * step + 1e-6, row


def test_other_rerankers_and_the_encoder_stay_in_fp32(lists):
    full = radio.Rerank(ENCODER, "bi-encoder")
    before = full(lists[0][0], lists[0][1]).scores
    lower = radio.Rerank(ENCODER, "bi-encoder", precision="bf16")
    assert lower(lists[0][0], lists[0][1]).scores != before
    assert full(lists[0][0], lists[0][1]).scores == before
    assert lower.weights.dump_state() == full.weights.dump_state()


def test_an_unknown_precision():
    with pytest.raises(SettingsError, match="got 'int4'"):
        radio.Rerank(ENCODER, "bi-encoder", precision="int4")


def test_a_processor_that_would_overflow(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx2": True})
    with pytest.raises(SettingsError, match="8-bit dot products"):
        radio.Rerank(ENCODER, "cross-encoder", precision="int8")("why?", ["a passage"])


def test_a_model_that_is_built_in_another_way():
    class Other(torch.nn.Module):
        device = torch.device("cpu")

        def __getitem__(self, _):
            return type("Holder", (), {"model": torch.nn.Linear(2, 2)})

    with pytest.raises(SettingsError, match="Linear is built in another way"):
        lower_precision(Other(), "bf16")
