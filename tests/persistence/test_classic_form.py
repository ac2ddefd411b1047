"""The names that vLLM, llama.cpp's converter and older sentence-transformers look for in an exported encoder."""

import json

import pytest
from sentence_transformers import SentenceTransformer

from radio_dspy.models.encoder import Encoder
from radio_dspy.persistence.classic_form import write_classic_form
from radio_dspy.persistence.export import export
from radio_dspy.rerankers import Rerank

TEXTS = ["Yeast dies in hot water.", "Ice floats. " * 40]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_an_exported_encoder_has_the_old_names(small, tmp_path):
    out = export(Rerank(Encoder(small.name, max_length=24), "bi-encoder"), tmp_path / "out")
    kinds = [one["type"] for one in read(out / "modules.json")]
    assert kinds == [f"sentence_transformers.models.{one}" for one in ("Transformer", "Pooling", "Normalize")]
    assert read(out / "sentence_bert_config.json") == {"max_seq_length": 24, "do_lower_case": False}
    pooling = read(out / "1_Pooling" / "config.json")
    assert [name for name, value in pooling.items() if value is True] == ["pooling_mode_mean_tokens", "include_prompt"]


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_each_pooling_stays_what_it_was(small, tmp_path, mode):
    model = SentenceTransformer(small.name, device="cpu")
    model[1].pooling_mode = mode
    model.save_pretrained(str(tmp_path))
    expected = model.encode(TEXTS)
    write_classic_form(tmp_path, model.max_seq_length)
    found = SentenceTransformer(str(tmp_path), device="cpu")
    assert found[1].pooling_mode == mode
    assert found.encode(TEXTS) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [("sentence_bert_config.json", "unpad_inputs", True), ("1_Pooling/config.json", "pooling_mode", ["cls", "mean"])],
)
def test_what_the_old_names_cannot_tell_stays(small, tmp_path, file, key, value):
    SentenceTransformer(small.name, device="cpu").save_pretrained(str(tmp_path))
    (tmp_path / file).write_text(json.dumps({**read(tmp_path / file), key: value}))
    before = {one: one.read_bytes() for one in tmp_path.rglob("*.json")}
    write_classic_form(tmp_path, 24)
    assert {one: one.read_bytes() for one in tmp_path.rglob("*.json")} == before
