"""Passages of a memory-mapped index stay on the disk and are the same as those in memory."""

import copy
import io
import json

import numpy as np
import pytest

from radio_dspy.core.errors import CheckpointError
from radio_dspy.core.files import sha256_of
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers import FaissRetriever, index_folder, passage_file
from tests.retrievers.counting import Counting

PASSAGES = [
    Passage("b", "Yeast dies above sixty degrees.", title="Bread"),
    Passage("a", "One line\u2028another\nand a third.", metadata={"tenant": "x", "pages": [1, 2]}),
    Passage("Ünï", "Ice floats."),
    Passage("c" * 300, "\u6c34 boils." * 200),
]


@pytest.fixture
def folder(tmp_path):
    FaissRetriever.build(PASSAGES, Counting()).save(tmp_path / "index")
    return tmp_path / "index"


def mapped(folder):
    return FaissRetriever.load(folder, Counting(), memory_map=True)


def test_they_are_those_in_memory(folder):
    whole, lazy = FaissRetriever.load(folder, Counting()), mapped(folder)
    assert isinstance(lazy.passages, passage_file.PassageFile)
    assert list(lazy.passages) == list(whole.passages) == PASSAGES
    assert (lazy.passages[-1], lazy.passages[1:3], len(lazy)) == (PASSAGES[-1], tuple(PASSAGES[1:3]), 4)
    assert [one.id in lazy for one in PASSAGES] == [True] * 4
    assert ("z" in lazy, 5 in lazy, dict(lazy.store.rows)) == (False, False, dict(whole.store.rows))
    assert lazy("bread", k=3).passages == whole("bread", k=3).passages
    assert lazy("bread", k=3, filter={"tenant": "x"}).passages == [PASSAGES[1]]
    assert (lazy.vectors(["a", "b"]) == whole.vectors(["a", "b"])).all()
    assert copy.deepcopy(lazy).passages is lazy.passages
    with pytest.raises(IndexError):
        lazy.passages[4]


def test_it_is_saved_again_as_it_was(folder, tmp_path):
    mapped(folder).save(tmp_path / "again")
    for name in ("passages.jsonl", "places.npy", "index.faiss"):
        assert sha256_of(tmp_path / "again" / name) == sha256_of(folder / name)


def test_two_ids_whose_hashes_lie_far_apart(tmp_path):
    """Their distance is more than 64 bits hold."""
    passages = [Passage("p1", "Ice floats."), Passage("q2", "Yeast dies.")]
    FaissRetriever.build(passages, Counting()).save(tmp_path / "index")
    assert list(mapped(tmp_path / "index").passages) == passages


def test_two_ids_with_one_hash(monkeypatch, tmp_path):
    monkeypatch.setattr(passage_file, "_key", lambda passage_id: 7)
    FaissRetriever.build(PASSAGES, Counting()).save(tmp_path)
    assert dict(mapped(tmp_path).store.rows) == {one.id: row for row, one in enumerate(PASSAGES)}
    assert "z" not in mapped(tmp_path)


def test_a_folder_without_places_is_read_as_a_whole(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("later_files", "passages_ends"):
        del manifest[name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "places.npy").unlink()
    assert mapped(folder).passages == tuple(PASSAGES)


def rewritten(folder, name, content):
    """A file of somebody who also writes what the manifest says of it."""
    (folder / name).write_bytes(content) if isinstance(content, bytes) else np.save(folder / name, content)
    manifest = json.loads((folder / "manifest.json").read_text())
    entries = manifest["later_files" if name == "places.npy" else "files"]
    entries[name] = sha256_of(folder / name)
    if name == "passages.jsonl":
        manifest["passages_ends"] = index_folder.ends_of(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


GOOD = np.array([[0, 1, 0], [9, 2, 1]])
buffer = io.BytesIO()
np.save(buffer, GOOD)
GOOD_HEADER = buffer.getvalue()
PLACES = {
    "empty": b"",
    "an archive": b"PK\x05\x06" + bytes(18),
    "a header that lies": GOOD_HEADER.replace(b"(2, 3)", b"(9, 3)"),
    "a deep header": GOOD_HEADER.replace(b"(2, 3)", b"(" * 6),
    "a pickle": b"\x80\x04N.",
    "an array of objects": np.array([[{}, 1, 2]], dtype=object),
    "one column": GOOD[:, :1],
    "floats": GOOD * 1.0,
    "no rows": GOOD[:0],
    "another start": GOOD + np.array([1, 0, 0]),
    "starts that fall": GOOD[::-1] * [[1, 1, 1], [0, 1, 1]],
    "beyond the file": np.array([[0, 1, 0], [1 << 40, 2, 1]]),
    "hashes that fall": np.array([[0, 2, 0], [9, 1, 1]]),
    "a row that there is not": np.array([[0, 1, 0], [9, 2, 2]]),
    "a negative row": np.array([[0, 1, -1], [9, 2, 1]]),
    "fewer passages": GOOD,
}


@pytest.mark.parametrize("name", PLACES)
def test_places_that_do_not_fit(folder, name):
    content = PLACES[name]
    if isinstance(content, np.ndarray) and content.dtype == object:
        np.save(folder / "places.npy", content, allow_pickle=True)
        content = (folder / "places.npy").read_bytes()
    rewritten(folder, "places.npy", content)
    with pytest.raises(CheckpointError, match=r"places\.npy|passages"):
        mapped(folder)


LINES = {
    "no JSON": b"{",
    "no object": b"[1]",
    "no text": b'{"id": "b", "title": ""}',
    "a number for a text": b'{"id": "b", "title": "", "text": 5}',
    "no id": b'{"id": "", "title": "", "text": "x"}',
    "deep": b"[" * 10_000,
    "metadata that is none": b'{"id": "b", "title": "", "text": "x", "metadata": 5}',
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_no_passage(folder, name):
    lines = (folder / "passages.jsonl").read_bytes().splitlines(keepends=True)
    lines[0] = LINES[name].ljust(len(lines[0]) - 1) + b"\n"
    whole = b"".join(lines)
    if name == "deep":
        places = np.load(folder / "places.npy")
        places[1:, 0] += len(whole) - places[-1, 0] - len(lines[-1])
        rewritten(folder, "places.npy", places)
    rewritten(folder, "passages.jsonl", whole)
    opened = mapped(folder)
    with pytest.raises(CheckpointError, match=r"passages\.jsonl: line 1 holds no passage"):
        opened("bread")


def test_a_changed_file_is_seen_at_its_ends(folder):
    (folder / "passages.jsonl").write_bytes((folder / "passages.jsonl").read_bytes()[:-2] + b" \n")
    with pytest.raises(CheckpointError, match=r"passages\.jsonl: was changed"):
        mapped(folder)
