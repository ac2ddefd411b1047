"""Data sets by their names, on small local ones in the layouts of BEIR, ir_datasets and the Hugging Face Hub."""

import json

import pytest

import radio_dspy as radio
from radio_dspy.core.errors import DataError, SettingsError

CORPUS = [
    {"_id": "d1", "title": "Yeast", "text": "Heat kills yeast."},
    {"_id": "d2", "title": "", "text": "Ice floats."},
]
QUERIES = [{"_id": "q1", "text": "What kills yeast?"}, {"_id": "q2", "text": "What floats?"}]
JUDGED = [("q1", "d1", 2), ("q1", "d2", 0)]


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))


def check(corpus, questions):
    assert [(one.id, one.title, one.text) for one in corpus] == [
        ("d1", "Yeast", "Heat kills yeast."), ("d2", "", "Ice floats."),
    ]  # fmt: skip
    assert [(one.id, one.question, one.relevant, one.grades) for one in questions] == [
        ("q1", "What kills yeast?", ["d1"], {"d1": 2, "d2": 0})
    ]


@pytest.fixture
def beir(tmp_path, monkeypatch):
    jsonl(tmp_path / "kitchen" / "corpus.jsonl", CORPUS)
    jsonl(tmp_path / "kitchen" / "queries.jsonl", QUERIES)
    (tmp_path / "kitchen" / "qrels").mkdir()
    rows = "".join(f"{query}\t{passage}\t{grade}\n" for query, passage, grade in JUDGED)
    (tmp_path / "kitchen" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    monkeypatch.setenv("BEIR_DATA", str(tmp_path))
    return tmp_path / "kitchen"


def test_beirs_folder_by_name_and_by_path(beir):
    for name in ("beir:kitchen", f"beir:{beir}", "beir:kitchen@test"):
        check(radio.load_corpus(name), radio.load_questions(name))
    with pytest.raises(DataError, match=r"splits that are judged are test: give beir:kitchen@SPLIT"):
        radio.load_questions("beir:kitchen@dev")
    with pytest.raises(DataError, match="no folder in BEIR's layout"):
        radio.load_corpus("beir:some/where")
    with pytest.raises(SettingsError, match="names no data set"):
        radio.load_corpus("beir:")


def test_a_set_of_ir_datasets(tmp_path, monkeypatch):
    ir_datasets = pytest.importorskip("ir_datasets")
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    (tmp_path / "docs.tsv").write_text("d1\tHeat kills yeast.\nd2\tIce floats.\n")
    (tmp_path / "queries.tsv").write_text("q1\tWhat kills yeast?\nq2\tWhat floats?\n")
    (tmp_path / "qrels").write_text("".join(f"{query} 0 {passage} {grade}\n" for query, passage, grade in JUDGED))
    names = {"docs_tsv": "docs.tsv", "queries_tsv": "queries.tsv", "qrels_trec": "qrels"}
    made = ir_datasets.create_dataset(**{name: str(tmp_path / file) for name, file in names.items()})
    monkeypatch.setitem(ir_datasets.registry._registered, "kitchen/test", made)
    corpus = radio.load_corpus("ir_datasets:kitchen/test")
    assert [(one.id, one.text) for one in corpus] == [("d1", "Heat kills yeast."), ("d2", "Ice floats.")]
    (one,) = radio.load_questions("ir_datasets:kitchen/test")
    assert (one.id, one.relevant, one.grades) == ("q1", ["d1"], {"d1": 2, "d2": 0})
    with pytest.raises(DataError, match="knows no data set of this id"):
        radio.load_corpus("ir_datasets:kitchen/none")
    with pytest.raises(SettingsError, match="names a split in the id"):
        radio.load_corpus("ir_datasets:kitchen@test")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """MTEB's layout: three configurations."""
    pytest.importorskip("datasets")
    folder = tmp_path / "kitchen"
    jsonl(folder / "corpus.jsonl", CORPUS)
    jsonl(folder / "queries.jsonl", QUERIES)
    for split, rows in (("test", JUDGED), ("dev", [("q2", "d2", 1)])):
        jsonl(folder / "qrels" / f"{split}.jsonl", [dict(zip(("query-id", "corpus-id", "score"), one)) for one in rows])  # noqa: B905
    card = """---
configs:
- config_name: corpus
  data_files: [{split: corpus, path: corpus.jsonl}]
- config_name: queries
  data_files: [{split: queries, path: queries.jsonl}]
- config_name: default
  data_files: [{split: test, path: qrels/test.jsonl}, {split: dev, path: qrels/dev.jsonl}]
---
"""
    (folder / "README.md").write_text(card)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return folder


def test_a_hugging_face_set_in_mtebs_layout(hub):
    check(radio.load_corpus(f"hf:{hub}"), radio.load_questions(f"hf:{hub}"))
    check(radio.load_corpus(f"hf:{hub}:corpus"), radio.load_questions(f"hf:{hub}:queries@test"))
    assert [one.id for one in radio.load_questions(f"hf:{hub}@dev")] == ["q2"]
    with pytest.raises(DataError, match="cannot be opened"):
        radio.load_corpus(f"hf:{hub.parent / 'none'}")


def test_parquet_files_are_read(tmp_path):
    parquet, table = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow").Table
    for name, rows in (("corpus", CORPUS), ("queries", QUERIES)):
        parquet.write_table(table.from_pylist(rows), tmp_path / f"{name}.parquet")
    judged = [dict(zip(("query-id", "corpus-id", "score"), one, strict=True)) for one in JUDGED]
    parquet.write_table(table.from_pylist(judged), tmp_path / "qrels.parquet")
    questions = radio.load_questions(tmp_path / "queries.parquet", qrels=tmp_path / "qrels.parquet")
    check(radio.load_corpus(tmp_path / "corpus.parquet"), questions[:1])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"broken.parquet: no Parquet file that can be read"):
        radio.load_corpus(tmp_path / "broken.parquet")
