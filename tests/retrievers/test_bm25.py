import json
import pickle
import shutil

import numpy as np
import pytest

from radio_dspy import BM25Retriever, Passage
from radio_dspy.core.errors import CheckpointError, DataError, SettingsError, UnsafeFileError

A = Passage("a", "Yeast dies in hot water.", metadata={"year": 2025, "draft": True})
B = Passage("b", "Ice floats.", "Winter", {"year": 2026, "draft": False})
C = Passage("c", "Yeast is alive.", metadata={"year": 2026, "draft": 1})


def test_it_finds_words():
    retriever = BM25Retriever([A, B, C])
    first, second = retriever.search(["does ice float? ice!", "hot yeast"], 2)
    assert first.ids == ("b",)
    assert second.ids == ("a", "c")
    assert second.scores[0] > second.scores[1] > 0
    assert retriever("winter", k=1).passages == [B]


def test_a_query_without_a_known_word_finds_nothing():
    retriever = BM25Retriever([A, B, C])
    assert [len(one) for one in retriever.search(["", "the", "zebra", "ice"], 10)] == [0, 0, 0, 1]
    assert retriever.search([], 10) == []


def test_equal_scores_keep_the_order_of_the_corpus():
    same = [Passage(str(row), "Ice floats.") for row in range(50)]
    assert BM25Retriever(same).search(["ice"], 7)[0].ids == tuple(map(str, range(7)))


def test_filters():
    retriever = BM25Retriever([A, B, C])
    assert retriever.search(["yeast"], 5, filter={"year": 2026})[0].ids == ("c",)
    assert retriever.search(["yeast"], 5, filter={"year": [2025, 2026]})[0].ids == ("c", "a")
    assert retriever.search(["yeast"], 5, filter={"draft": True})[0].ids == ("a",)  # 1 is not true
    assert [one.id for one in retriever("yeast", filter={"year": 1}).passages] == []


def test_what_cannot_be_indexed():
    with pytest.raises(DataError, match="'a' appears twice"):
        BM25Retriever([A, A])
    with pytest.raises(DataError, match="at least one passage"):
        BM25Retriever([])
    with pytest.raises(SettingsError, match="k must be at least 1"):
        BM25Retriever([A]).search(["x"], 0)


def test_saved_and_loaded_it_ranks_the_same(demo, tmp_path):
    retriever = BM25Retriever(demo.passages)
    retriever.save(tmp_path / "words")
    loaded = BM25Retriever.load(tmp_path / "words", k=3)
    questions = [one.question for one in demo.test[:20]]
    assert loaded.search(questions, 10) == retriever.search(questions, 10)
    assert loaded.k == 3
    BM25Retriever([A, B]).save(tmp_path / "few")
    assert BM25Retriever.load(tmp_path / "few").passages[1].metadata == B.metadata
    with pytest.raises(SettingsError, match="already there"):
        retriever.save(tmp_path / "words")


@pytest.fixture
def saved(tmp_path):
    BM25Retriever([A, B, C]).save(tmp_path / "words")
    return tmp_path / "words"


def redo(folder, **files):
    """Write the manifest again, as whoever changes a file can do."""
    import hashlib

    said = json.loads((folder / "manifest.json").read_text())
    said["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in said["files"]}
    (folder / "manifest.json").write_text(json.dumps({**said, **files}))


def test_a_changed_file_is_refused(saved):
    (saved / "passages.jsonl").write_text('{"id": "a", "text": "Other."}\n')
    with pytest.raises(CheckpointError, match=r"passages.jsonl: is missing, a link, or was changed"):
        BM25Retriever.load(saved)
    redo(saved)
    with pytest.raises(CheckpointError, match="not that of its passages"):
        BM25Retriever.load(saved)


def test_nothing_pickled_is_opened(saved, tmp_path):
    class Trap:
        def __reduce__(self):
            return (shutil.rmtree, (str(tmp_path),))

    np.save(saved / "data.csc.index.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    redo(saved)
    with pytest.raises(CheckpointError, match="holds no index that bm25s reads"):
        BM25Retriever.load(saved)
    (saved / "data.csc.index.npy").write_bytes(pickle.dumps(Trap()))
    redo(saved)
    with pytest.raises(CheckpointError, match="holds no index that bm25s reads"):
        BM25Retriever.load(saved)
    assert saved.is_dir()


def test_arrays_that_lead_out_of_each_other_are_refused(saved):
    rows = np.load(saved / "indices.csc.index.npy")
    np.save(saved / "indices.csc.index.npy", rows + 7)
    redo(saved)
    with pytest.raises(CheckpointError, match="not that of its passages"):
        BM25Retriever.load(saved)


def test_other_files_are_refused(saved):
    said = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps({**said, "files": {**said["files"], "../x": ""}}))
    with pytest.raises((UnsafeFileError, CheckpointError)):
        BM25Retriever.load(saved)
    (saved / "manifest.json").write_text(json.dumps({**said, "kind": "faiss"}))
    with pytest.raises(CheckpointError, match="no manifest of a BM25 index"):
        BM25Retriever.load(saved)
    with pytest.raises(CheckpointError, match="no manifest"):
        BM25Retriever.load(saved.parent)


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": "numba"}, {"corpus": ["x"]}, {"csc_backend": "scipy"}, {"auto_compile": True}, {"method": "bm25+"},
        {"idf_method": "atire"}, {"dtype": "float64"}, {"int_dtype": "object"}, {"k1": "1.5"}, {"b": 7},
        {"num_docs": 0}, {"version": None},
    ],
)  # fmt: skip
def test_settings_of_bm25s_that_are_not_ours_are_refused(saved, changes):
    said = json.loads((saved / "params.index.json").read_text())
    (saved / "params.index.json").write_text(json.dumps({**said, **changes}))
    redo(saved)
    with pytest.raises(CheckpointError, match=r"holds no index that bm25s reads \(\w+: "):
        BM25Retriever.load(saved)


HUGE = (
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (2199023255552,), }".ljust(117)
    + b"\n"
)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("data", lambda one: one * np.nan),
        ("data", lambda one: one * np.inf),
        ("data", lambda one: -one),
        ("data", lambda one: one.astype("f2")),
        ("indices", lambda one: one * 0),
        ("indices", lambda one: one.astype("u4")),
        ("data", lambda one: HUGE),
        ("data", lambda one: b""),
        ("indptr", lambda one: b"\x93NUMPY\x01\x00"),
    ],
)
def test_arrays_that_no_bm25_has_are_refused(saved, name, change):
    path = saved / f"{name}.csc.index.npy"
    found = change(np.load(path))
    path.write_bytes(found) if isinstance(found, bytes) else np.save(path, found)
    redo(saved)
    with pytest.raises(CheckpointError, match=r"holds no index that bm25s reads|not that of its passages"):
        BM25Retriever.load(saved)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "", '{"ice": 1e99}'])
def test_words_that_are_none_are_refused(saved, text):
    (saved / "vocab.index.json").write_text(text)
    redo(saved)
    with pytest.raises(CheckpointError, match=r"holds no index that bm25s reads|not that of its passages"):
        BM25Retriever.load(saved)
