import json
import shutil

import faiss
import numpy as np
import pytest

from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.models.encoder import Encoder
from radio_dspy.retrievers import FaissRetriever
from radio_dspy.retrievers.faiss_index import HNSW_FROM, IVF_FROM, build_index, checked_layout, search_index

KINDS = [("flat", "float16"), ("hnsw", "float32"), ("hnsw", "float16"), ("ivf", "float32"), ("ivf", "float16")]


def unit(vectors):
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def without_ends(folder):
    """The manifest of an earlier release, which says nothing of a file that is not read as a whole."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["ends"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def cloud():
    """Vectors around a hundred centres, and queries around the same ones."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((100, 32))
    near = [centres[draw.integers(100, size=count)] + 0.7 * draw.standard_normal((count, 32)) for count in (5000, 300)]
    return [unit(one) for one in near]


@pytest.fixture(scope="module")
def vectors(topic, small):
    """Those of the topic's passages, made once."""
    return small.encode_passages(topic.passages)


def share_found(exact, found):
    return np.mean([np.isin(one, other).mean() for one, other in zip(exact, found, strict=True)])


def candidates(made, queries):
    """The rows that an index finds."""
    index, layout = made
    return search_index(index, layout, queries, 50)[1]


@pytest.mark.parametrize(("kind", "dtype"), KINDS)
def test_the_recall_that_is_told_is_the_one_that_is_found(cloud, kind, dtype):
    passages, queries = cloud
    exact = candidates(build_index(passages, "flat", "float32"), queries)
    made = build_index(passages, kind, dtype, 0.95, queries[:200])
    assert made[1].recall == pytest.approx(share_found(exact[:200], candidates(made, queries[:200])), abs=1e-4)
    assert made[1].recall >= 0.95
    assert share_found(exact[200:], candidates(made, queries[200:])) > 0.9


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_more_recall_takes_more_effort(cloud, kind):
    passages, queries = cloud
    little, much = (build_index(passages, kind, "float32", recall, queries)[1] for recall in (0.1, 0.9999))
    assert little.effort < much.effort
    assert little.recall < much.recall


def test_half_precision_finds_the_same_for_one_query_and_for_many(cloud, monkeypatch):
    passages, queries = cloud
    monkeypatch.setattr("radio_dspy.retrievers.faiss_index._BLOCK", 1980)  # several, and a last one below 50
    made = build_index(passages[:4000], "flat", "float16")
    scores, rows = search_index(*made, queries[:20], 50)
    single = [search_index(*made, queries[i : i + 1], 50) for i in range(20)]
    assert scores == pytest.approx(np.concatenate([one for one, _ in single]), abs=1e-6)
    assert share_found(rows, np.concatenate([one for _, one in single])) > 0.999
    wide = build_index(passages[:4000], "flat", "float32")[0]
    assert faiss.serialize_index(made[0]).nbytes < 0.51 * faiss.serialize_index(wide).nbytes


@pytest.mark.parametrize(("kind", "dtype"), [("flat", "float32"), *KINDS])
@pytest.mark.parametrize("memory_map", [False, True])
def test_saved_and_loaded_it_finds_the_same(topic, small, vectors, tmp_path, kind, dtype, memory_map):
    built = FaissRetriever.build(topic.passages, small, vectors=vectors, kind=kind, dtype=dtype)
    built.save(tmp_path / "index")
    loaded = FaissRetriever.load(tmp_path / "index", small, memory_map=memory_map)
    assert loaded.layout == built.layout
    assert (loaded.layout.kind, loaded.layout.dtype) == (kind, dtype)
    questions = [one.question for one in topic.train[:12]]
    for mine, theirs in zip(loaded.search(questions, 5), built.search(questions, 5), strict=True):
        assert (mine.ids, mine.scores) == (theirs.ids, theirs.scores)
    ids = [one.id for one in topic.passages[:3]]
    assert (loaded.vectors(ids) == built.vectors(ids)).all()
    assert loaded.vectors(ids) == pytest.approx(small.encode_passages(topic.passages[:3]), abs=1e-3)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "index.faiss").read_bytes() == (tmp_path / "index" / "index.faiss").read_bytes()


def test_the_default_is_written_as_the_first_release_wrote_it(topic, small, tmp_path):
    FaissRetriever.build(topic.passages, small).save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    later = {"ends", "passages_ends", "later_files"}  # which it passes over
    assert set(manifest) - later == {"encoder", "files", "format", "query_prefix"}
    assert (manifest["format"], sorted(manifest["files"])) == (1, ["index.faiss", "passages.jsonl"])
    flat = faiss.IndexFlatIP(384)
    flat.add(small.encode_passages(topic.passages))
    assert (tmp_path / "index.faiss").read_bytes() == faiss.serialize_index(flat).tobytes()


def test_other_kinds_are_not_taken_for_the_first_format(topic, small, vectors, tmp_path):
    FaissRetriever.build(topic.passages, small, vectors=vectors, kind="ivf").save(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["format"] == 2


def test_the_size_decides_where_it_is_left_to_it():
    sizes = [1, HNSW_FROM - 1, HNSW_FROM, IVF_FROM - 1, IVF_FROM]
    kinds = [checked_layout("auto", "float16", 0.98, size) for size in sizes]
    assert kinds == [(kind, "float16") for kind in ("flat", "flat", "hnsw", "hnsw", "ivf")]
    assert checked_layout("flat", "float32", 0.98, IVF_FROM) == ("flat", "float32")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "pq"}, "kind must be 'flat', 'hnsw', 'ivf' or 'auto', got 'pq'"),
        ({"kind": ["flat"]}, "kind must be 'flat', 'hnsw', 'ivf' or 'auto', got"),
        ({"dtype": "int8"}, "dtype must be 'float32' or 'float16', got 'int8'"),
        ({"dtype": ["float16"]}, "dtype must be 'float32' or 'float16', got"),
        ({"recall": 1.5}, r"recall must lie above 0 and up to 1, got 1\.5"),
        ({"recall": "high"}, "recall must lie above 0 and up to 1, got 'high'"),
    ],
)
def test_what_there_is_not(topic, small, wrong, message):
    with pytest.raises(SettingsError, match=message):
        FaissRetriever.build(topic.passages, small, **wrong)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(("kind", "dtype"), KINDS)
def test_a_handful_of_passages(topic, small, vectors, kind, dtype, count):
    found = FaissRetriever.build(topic.passages[:count], small, vectors=vectors[:count], kind=kind, dtype=dtype)(
        "anything", k=10
    )
    assert len(found.passages) == count


def test_lists_that_hold_too_little_give_fewer(cloud, small):
    passages, queries = cloud
    corpus = [Passage(str(row), "text") for row in range(len(passages))]
    built = FaissRetriever.build(corpus, small, vectors=passages, kind="ivf", recall=0.1)
    found = built.store.search(queries[:1], 4000)[0]
    assert 0 < len(found) < 4000
    assert len({passage.id for passage, _ in found}) == len(found)


def test_sample_queries_are_what_recall_is_measured_with(topic, small, monkeypatch):
    asked = []
    encoder = Encoder(small.name)
    monkeypatch.setattr(encoder, "encode_queries", lambda texts: asked.append(texts) or np.eye(2, 384, dtype="float32"))
    FaissRetriever.build(topic.passages, encoder, kind="ivf", sample_queries=["one?", "two?"])
    FaissRetriever.build(topic.passages, encoder, sample_queries=["one?", "two?"])  # exact: nothing to measure
    assert asked == [["one?", "two?"]]


def test_an_index_of_another_kind_than_the_manifest_says(topic, small, vectors, tmp_path):
    FaissRetriever.build(topic.passages, small, vectors=vectors, kind="hnsw").save(tmp_path / "hnsw")
    FaissRetriever.build(topic.passages, small, vectors=vectors, kind="ivf").save(tmp_path / "ivf")
    shutil.copyfile(tmp_path / "ivf" / "index.faiss", tmp_path / "hnsw" / "index.faiss")
    with pytest.raises(CheckpointError, match=r"index\.faiss: was changed after the index was saved"):
        FaissRetriever.load(tmp_path / "hnsw", small)
    with pytest.raises(CheckpointError, match=r"index\.faiss: was changed after the index was saved"):
        FaissRetriever.load(tmp_path / "hnsw", small, memory_map=True)  # by its size, head and tail
    without_ends(tmp_path / "hnsw")
    with pytest.raises(CheckpointError, match="of IndexIVFFlat for"):
        FaissRetriever.load(tmp_path / "hnsw", small, memory_map=True)
    manifest = json.loads((tmp_path / "ivf" / "manifest.json").read_text())
    for wrong in ({"kind": "pq"}, {}, {"kind": "ivf", "dtype": "float32", "effort": -1, "recall": 1}, 7):
        (tmp_path / "ivf" / "manifest.json").write_text(json.dumps({**manifest, "index": wrong}))
        with pytest.raises(CheckpointError, match="not an index manifest"):
            FaissRetriever.load(tmp_path / "ivf", small)


def test_lists_that_lie_in_another_file_are_refused(topic, small, vectors, tmp_path):
    FaissRetriever.build(topic.passages, small, vectors=vectors, kind="ivf").save(tmp_path)
    (tmp_path / "elsewhere").write_bytes((tmp_path / "index.faiss").read_bytes())
    mapped = faiss.read_index(str(tmp_path / "elsewhere"), faiss.IO_FLAG_MMAP)
    faiss.write_index(mapped, str(tmp_path / "index.faiss"))  # writes the name of the other file
    without_ends(tmp_path)
    with pytest.raises(CheckpointError, match="of IndexIVFFlat for"):
        FaissRetriever.load(tmp_path, small, memory_map=True)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_a_damaged_file_that_is_mapped(topic, small, vectors, tmp_path, kind):
    FaissRetriever.build(topic.passages, small, vectors=vectors, kind=kind).save(tmp_path)
    without_ends(tmp_path)
    whole = (tmp_path / "index.faiss").read_bytes()
    for length in (0, 10, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "index.faiss").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="FAISS cannot read it"):
            FaissRetriever.load(tmp_path, small, memory_map=True)
