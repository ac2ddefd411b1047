"""Other runtimes give torch's scores, and fewer bits of theirs nearly the same."""

import numpy as np
import pytest
import torch

import radio_dspy as radio
from radio_dspy.core.errors import MissingExtraError, SettingsError
from radio_dspy.models import backends
from tests.models.test_reranker_kinds import KINDS, QUESTION, TEXTS, Desk

VNNI = torch.cpu.get_capabilities().get("avx512_vnni") or torch.cpu.get_capabilities().get("avx_vnni")
GRAPHS = [
    ("BERT", "onnx", "fp32"),
    ("BERT", "onnx", "int8"),
    ("BERT", "openvino", "fp32"),
    ("BERT", "openvino", "int8"),
    ("two outputs", "openvino", "bf16"),
    ("ModernBERT", "onnx", "fp32"),
    ("DeBERTa-v3", "openvino", "fp32"),
    ("Qwen3 with a head", "onnx", "fp32"),
    ("causal, another prompt", "openvino", "fp32"),
    ("Dense, cut", "onnx", "fp32"),
    ("ColBERT", "onnx", "fp32"),
    ("ColBERT", "openvino", "fp32"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend", "precision"), GRAPHS)
def test_every_kind_of_model_scores_alike(name, backend, precision, tmp_path, monkeypatch):
    for package in backends._PACKAGES[backend]:
        pytest.importorskip(package)
    kind = KINDS[name]
    folder = str(kind.make(tmp_path / "model"))
    plain = Desk(radio.Rerank(folder, device="cpu", **kind.settings))()
    written = []
    write = backends.write_graph
    monkeypatch.setattr(backends, "write_graph", lambda *given: written.append(1) or write(*given))
    other = Desk(radio.Rerank(folder, backend=backend, precision=precision, **kind.settings))()
    np.testing.assert_allclose(other, plain, atol=1e-4 if precision == "fp32" else 0.05)
    assert len(written) == (1 if kind.architecture == "cross-encoder" else 2)  # queries and passages


def test_an_encoder_gives_the_same_vectors(tmp_path):
    pytest.importorskip("onnxscript")
    name = str(KINDS["Dense, cut"].make(tmp_path / "model"))
    plain, other = radio.Encoder(name), radio.Encoder(name, backend="onnx")
    np.testing.assert_allclose(other.encode_queries([QUESTION]), plain.encode_queries([QUESTION]), atol=1e-5)
    np.testing.assert_allclose(other.encode_passages(TEXTS), plain.encode_passages(TEXTS), atol=1e-5)
    assert other.identity == plain.identity


def test_what_cannot_run_is_told_at_once(tmp_path, monkeypatch):
    for backend, precision, message in (
        ("tensorrt", "fp32", "backend must be one of"),
        ("onnx", "bf16", "backend='onnx' scores with precision 'fp32' or 'int8', not with 'bf16'"),
    ):
        with pytest.raises(SettingsError, match=message):
            radio.Rerank("all-MiniLM-L6-v2", backend=backend, precision=precision)
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs onnx and onnxscript and openvino.*radio-dspy\[openvino\]"):
        radio.Encoder("all-MiniLM-L6-v2", backend="openvino")


def test_static_vectors_have_no_graph(tmp_path):
    pytest.importorskip("onnxscript")
    name = str(KINDS["static, cut"].make(tmp_path / "model"))
    with pytest.raises(SettingsError, match="runs transformers, and this is a StaticEmbedding"):
        radio.Rerank(name, backend="onnx")(QUESTION, TEXTS)
