import asyncio
import copy
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from radio_dspy.core.errors import CheckpointError, DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import RationaleSimilarity
from radio_dspy.models.encoder import Encoder
from radio_dspy.models.vectors import checked_vectors
from radio_dspy.rerankers import RationaleRerank
from radio_dspy.retrievers import FaissRetriever
from radio_dspy.retrievers import faiss as faiss_module
from tests.conftest import ENCODER
from tests.retrievers.counting import Counting


def test_search_is_exact(index, small, topic):
    vectors = small.encode_passages(topic.passages)
    query = topic.train[0].question
    expected = np.argsort(-(vectors @ small.encode_queries([query])[0]))[:5]
    found = index(query, k=5)
    assert [one.id for one in found.passages] == [topic.passages[i].id for i in expected]
    assert found.scores == sorted(found.scores, reverse=True)
    assert {"id", "title", "text"} <= set(type(found.passages[0]).__slots__)


def test_one_batch_gives_what_single_calls_give(index, topic):
    questions = [one.question for one in topic.train[:5]]
    batch = index.search(questions, 4)
    single = [index(query, k=4) for query in questions]
    assert [list(one.passages) for one in batch] == [one.passages for one in single]


def test_k_above_the_corpus_gives_all(index):
    assert len(index("anything", k=1000).passages) == len(index)


def test_asynchronous_calls(index, topic):
    query = topic.train[0].question
    found = asyncio.run(index.acall(query, k=3))
    assert found.passages == index(query, k=3).passages


def test_what_is_no_index_is_not_written_over(index, tmp_path):
    index.save(tmp_path / "index")
    index.save(tmp_path / "index")  # an index is replaced
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "manifest.json").write_text("{}")
    with pytest.raises(SettingsError, match="program: holds something else than an index"):
        index.save(tmp_path / "program")
    assert [one.name for one in (tmp_path / "program").iterdir()] == ["manifest.json"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "passages.jsonl").write_text("{}")  # a corpus of one's own
    with pytest.raises(SettingsError, match="data: holds something else than an index"):
        index.save(tmp_path / "data")


def test_a_save_that_was_killed_half_way_is_done_again(index, tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(faiss_module, "write_lines", killed)
    with pytest.raises(KeyboardInterrupt):
        index.save(tmp_path / "index")
    monkeypatch.undo()
    (tmp_path / "index" / ".passages.jsonl.0a1b").write_text("{}")  # what a kill leaves of a file
    index.save(tmp_path / "index")
    assert FaissRetriever.load(tmp_path / "index", encoder=index.encoder).passages == index.passages


def test_saved_and_loaded_elsewhere_it_finds_the_same(encoder, topic, tmp_path):
    """By the encoder's name alone."""
    built = FaissRetriever.build(topic.passages[:10], encoder)
    built.save(tmp_path / "index")
    assert sorted(one.name for one in (tmp_path / "index").iterdir()) == [
        "index.faiss",
        "manifest.json",
        "passages.jsonl",
        "places.npy",
    ]
    moved = shutil.move(tmp_path / "index", tmp_path / "moved")
    loaded = FaissRetriever.load(moved)
    query = topic.train[0].question
    assert loaded(query, k=5).passages == built(query, k=5).passages
    assert loaded(query, k=5).scores == built(query, k=5).scores


def test_a_wrong_encoder_and_a_damaged_folder_are_refused(index, tmp_path):
    folder = tmp_path / "index"
    index.save(folder)
    with pytest.raises(CheckpointError, match="built with encoder"):
        FaissRetriever.load(folder, encoder=Encoder(ENCODER, max_length=32))
    lines = (folder / "passages.jsonl").read_text().splitlines()
    (folder / "passages.jsonl").write_text("\n".join(lines[:-1]))
    with pytest.raises(CheckpointError, match=r"passages\.jsonl: was changed after the index was saved"):
        FaissRetriever.load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(CheckpointError, match="index format 99"):
        FaissRetriever.load(folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not an index manifest"):
        FaissRetriever.load(folder)


def test_prefixes_are_kept_with_the_index(topic, tmp_path):
    encoder = Encoder(ENCODER, query_prefix="query: ", passage_prefix="passage: ")
    built = FaissRetriever.build(topic.passages[:5], encoder=encoder)
    built.save(tmp_path)
    loaded = FaissRetriever.load(tmp_path)
    assert loaded.encoder.query_prefix == "query: "
    assert loaded("why?", k=5).scores == built("why?", k=5).scores


def test_copies_share_the_index(index):
    assert copy.deepcopy(index).store is index.store
    assert index.deepcopy().store is index.store


def test_stored_vectors_by_id(index, small, topic):
    ids = [topic.passages[3].id, topic.passages[0].id]
    expected = small.encode_passages([topic.passages[3], topic.passages[0]])
    assert index.vectors(ids) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(DataError, match="'nowhere' is not in the index"):
        index.vectors(["nowhere"])


def test_vectors_that_were_made_elsewhere(index, small, topic):
    vectors = small.encode_passages(topic.passages)
    built = FaissRetriever.build(topic.passages, encoder=small, vectors=vectors)
    query = topic.train[0].question
    assert built(query, k=5).scores == index(query, k=5).scores
    for wrong in (vectors[1:], vectors[0]):
        with pytest.raises(DataError, match=rf"{len(vectors)} passages, but vectors of shape"):
            FaissRetriever.build(topic.passages, encoder=small, vectors=wrong)


def test_prefixes_reach_the_encoder():
    plain, prefixed = Encoder(ENCODER), Encoder(ENCODER, query_prefix="query: ", passage_prefix="passage: ")
    assert prefixed.encode_queries(["ice"]) == pytest.approx(plain.encode_queries(["query: ice"]), abs=1e-6)
    assert prefixed.encode_passages(["ice"]) == pytest.approx(plain.encode_passages(["passage: ice"]), abs=1e-6)
    assert prefixed.identity != plain.identity


def test_what_cannot_be_indexed(small):
    with pytest.raises(DataError, match="at least one passage"):
        FaissRetriever.build([], encoder=small)
    with pytest.raises(DataError, match="'a' appears twice"):
        FaissRetriever.build([Passage("a", "x"), Passage("a", "y")], encoder=small)


def test_k_must_be_positive(index):
    with pytest.raises(SettingsError, match="k must be at least 1, got 0"):
        index("anything", k=0)


class Said(Counting):
    """An encoder of the user's own that says other things of itself."""

    def __init__(self, said):
        super().__init__()
        self.identity = {**Counting.identity, **said}


SAID = [{"layers": (1, 2)}, {5: "x"}, {"size": {"deep": [1, (2, 3)]}}]


@pytest.mark.parametrize("said", SAID, ids=str)
def test_an_identity_is_compared_as_the_manifest_gives_it_back(tmp_path, said):
    FaissRetriever.build([Passage("a", "Ice floats.")], Said(said)).save(tmp_path)
    assert len(FaissRetriever.load(tmp_path, Said(said))) == 1
    with pytest.raises(CheckpointError, match="built with encoder"):
        FaissRetriever.load(tmp_path, Counting())


@pytest.mark.parametrize(
    "said",
    [
        {"where": Path("x")},
        {"size": np.int64(3)},
        {"weight": float("nan")},
        {"model": None},
        {"max_length": "12"},
        {"passage_prefix": 7},
    ],
    ids=str,
)
def test_an_identity_that_could_not_be_loaded_again_is_refused_before_passages_are_encoded(said):
    encoder = Said(said)
    encoder.instead = lambda count: pytest.fail("passages were encoded")
    with pytest.raises(SettingsError, match="its identity and query_settings must be JSON values"):
        FaissRetriever.build([Passage("a", "Ice floats.")], encoder)


def test_query_settings_take_no_entry_of_the_manifest(tmp_path):
    class Greedy(Counting):
        query_settings = {"query_prefix": None, "format": 9, "files": {}, "lang": "en"}  # noqa: RUF012

    FaissRetriever.build([Passage("a", "Ice floats.")], Greedy()).save(tmp_path)
    assert len(FaissRetriever.load(tmp_path, Greedy())) == 1


def test_queries_and_passages_of_two_models_are_not_compared():
    class Two(Counting):
        def _encode(self, texts, *, query, show_progress):
            return np.ones((len(texts), 3 if query else 4), dtype=np.float32)

    request = RankRequest(
        "q", "why?", (Passage("a", "Ice floats."),), (0.0,), answers=("ice",), rationale="Ice is light."
    )
    for compare in (
        lambda: RationaleRerank(Two())("why?", ["ice"], "Ice is light.", ["Ice floats."]),
        lambda: RationaleSimilarity(Two()).score([request]),
        lambda: RationaleSimilarity(Two(), index=FaissRetriever.build(request.candidates, Two())).score([request]),
    ):
        with pytest.raises(DataError, match="vectors of 4 dimensions, queries of 3"):
            compare()


def test_one_row_that_is_not_of_length_1_takes_no_memory_of_all():
    rows = np.full((20_000, 64), 0.125, dtype=np.float32)
    rows[7] *= 2
    tracemalloc.start()
    found = checked_vectors(rows, len(rows), "mine")
    assert tracemalloc.get_traced_memory()[1] < 1.6 * rows.nbytes
    tracemalloc.stop()
    assert found[7].tolist() == found[8].tolist() == [0.125] * 64


def test_a_passage_with_a_list_of_values_has_each_of_them(small):
    held = [Passage(str(row), f"page {row}", metadata={"tags": [f"t{row % 2}", "all"]}) for row in range(4)]
    found = FaissRetriever.build(held, encoder=small)
    for wanted, ids in (("t1", "13"), (["t0", "none"], "02"), ("all", "0123"), ("none", "")):
        assert sorted(one.id for one in found("why?", filter={"tags": wanted}).passages) == list(ids)
