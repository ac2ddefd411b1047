"""An index is replaced in one step: under kills, a full disk and a reader; what is not ours is not touched."""

import hashlib
import json
import subprocess
import sys

import pytest

from radio_dspy.core.errors import CheckpointError, DataError, RunError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers import FaissRetriever, index_saving
from radio_dspy.retrievers import faiss as faiss_module
from tests.conftest import ROOT
from tests.retrievers.counting import Counting

OLD = [Passage(f"old{number}", "x" * number) for number in range(1, 8)]
NEW = [Passage(f"new{number}", "y" * number) for number in range(1, 6)]


def built(passages, **settings):
    return FaissRetriever.build(passages, Counting(), **settings)


def ids_in(folder, **settings):
    return [one.id for one in FaissRetriever.load(folder, Counting(), **settings).passages]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.retrievers.test_index_saving import *

def killing(step):
    # SIGKILL before the given step that changes a name in the file system.
    left = [step]
    def wrapped(real):
        def call(*arguments, **settings):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **settings)
        return call
    for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
        setattr(Path, name, wrapped(getattr(Path, name)))

def in_a_child(step, folder):
    child = os.fork()
    if not child:
        killing(step)
        built(NEW).save(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def visible(folder):
    return sorted(one.name for one in folder.iterdir() if not one.name.startswith("..saving"))

def check(step, replaced):
    folder = Path({folder!r}) / f"{{replaced}}-{{step}}"
    if replaced:
        built(OLD).save(folder)
        (folder / "notes.txt").write_text("mine")
    code = in_a_child(step, folder)
    try:
        found = ids_in(folder)
        assert ids_in(folder, memory_map=True) == found
    except CheckpointError as error:
        assert not replaced and "no such file" in str(error), error
        found = []
    old, new = ([one.id for one in passages] for passages in (OLD, NEW))
    assert found in ((old, new) if replaced else ([], new)), (step, found)
    built(OLD).save(folder)
    assert ids_in(folder) == old
    assert len([one for one in visible(folder) if one != "notes.txt"]) == 4, (step, visible(folder))
    assert not replaced or (folder / "notes.txt").read_text() == "mine"
    return code

for replaced in (False, True):
    steps = 0
    while check(steps := steps + 1, replaced) == -9:
        pass
    print(steps - 1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_kill_at_any_step_leaves_the_old_index_or_the_new_one(tmp_path):
    script = KILLED.format(root=str(ROOT), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(int(steps) >= 6 for steps in done.stdout.split()[-2:])


@pytest.mark.parametrize("broken", ["faiss.write_index", "write_lines"])
def test_a_full_disk_leaves_the_old_index_and_nothing_else(tmp_path, monkeypatch, broken):
    built(OLD).save(tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}

    def full(*arguments):
        raise RuntimeError("write error") if "faiss" in broken else OSError(28, "No space left on device")

    monkeypatch.setattr(*(("faiss.write_index", full) if "faiss" in broken else (faiss_module, "write_lines", full)))
    with pytest.raises(CheckpointError, match=r"cannot be saved .* as it was"):
        built(NEW).save(tmp_path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_a_file_that_faiss_wrote_in_part_is_not_taken(tmp_path, monkeypatch):
    import faiss

    real = faiss.write_index

    def cut(index, path):
        real(index, path)
        with open(path, "r+b") as file:  # noqa: PTH123
            file.truncate(60)

    monkeypatch.setattr("faiss.write_index", cut)
    with pytest.raises(CheckpointError, match="cannot be saved"):
        built(NEW).save(tmp_path / "index")
    assert list((tmp_path / "index").iterdir()) == []


def test_a_reader_gets_the_one_or_the_other(tmp_path, monkeypatch):
    """The index is replaced after the reader has read the manifest."""
    built(OLD).save(tmp_path)
    real, new = faiss_module.check_files, built(NEW)

    def replaced_meanwhile(*arguments, **settings):
        monkeypatch.setattr(faiss_module, "check_files", real)
        new.save(tmp_path)
        return real(*arguments, **settings)

    monkeypatch.setattr(faiss_module, "check_files", replaced_meanwhile)
    assert ids_in(tmp_path) == [one.id for one in NEW]


def test_two_that_save_at_the_same_time(tmp_path):
    pytest.importorskip("fcntl")
    built(OLD).save(tmp_path)
    with index_saving._alone(tmp_path), pytest.raises(RunError, match="another process is saving"):
        built(NEW).save(tmp_path)
    built(NEW).save(tmp_path)
    assert ids_in(tmp_path) == [one.id for one in NEW]


def test_a_mapped_index_is_saved_over_itself(tmp_path):
    built(OLD, kind="ivf").save(tmp_path)
    mapped = FaissRetriever.load(tmp_path, Counting(), memory_map=True)
    mapped.save(tmp_path)
    assert ids_in(tmp_path, memory_map=True) == [one.id for one in OLD]
    assert mapped("xxx", k=1).passages[0].id == "old3"


FOREIGN = {
    "another library's store": {"index.faiss": b"IxF2", "index.pkl": b"docstore"},
    "an index of faiss alone": {"index.faiss": b"IxFI"},
    "a corpus": {"passages.jsonl": b"{}"},
    "a saved program": {"manifest.json": b'{"format": 1, "program": "MultiHop", "files": {}}', "program.json": b"{}"},
    "a manifest of something else": {"manifest.json": b'{"name": "an app"}'},
    "names like ours without a marker": {"index-0123456789abcdef.faiss": b"IxFI"},
}
# Each names files of the user's with their hashes; only the one that a save wrote knows the folder.
CORPUS = b'{"id": "a", "contents": "mine"}\n'
NAMED = {"passages.jsonl": hashlib.sha256(CORPUS).hexdigest(), "notes.txt": hashlib.sha256(CORPUS).hexdigest()}
TAG = "0123456789abcdef"
MARKS = {
    "the user's own": b'{"theme": "dark"}',
    "no JSON": b"saving...",
    "of an earlier release": json.dumps({"tag": TAG, "files": NAMED}).encode(),
    "of another folder": json.dumps({"tag": TAG, "files": NAMED, "folder": 1}).encode(),
    "with another tag": json.dumps({"tag": "..", "files": NAMED, "folder": 1}).encode(),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_that_is_not_provably_an_index_is_not_touched(tmp_path, what):
    for name, data in FOREIGN[what].items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SettingsError, match="holds something else than an index"):
        built(NEW).save(tmp_path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == FOREIGN[what]


@pytest.mark.parametrize("indexed", [False, True], ids=["folder", "index"])
@pytest.mark.parametrize("what", MARKS)
def test_a_mark_that_no_save_into_the_folder_wrote_is_left(tmp_path, what, indexed):
    if indexed:
        built(OLD).save(tmp_path)
    for name in ("notes.txt", f"index-{TAG}.faiss", *([] if indexed else ["passages.jsonl"])):
        (tmp_path / name).write_bytes(CORPUS)
    (tmp_path / ".saving.json").write_bytes(MARKS[what])
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(SettingsError, match=r"\.saving\.json: no save into this folder wrote it; move it away"):
        built(NEW).save(tmp_path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_a_manifest_does_not_choose_what_is_removed(tmp_path):
    """Whoever wrote the old manifest names files and their hashes."""
    built(OLD).save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "passages.jsonl").write_text("changed by hand")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"]["notes.txt"] = index_saving.sha256_of(tmp_path / "notes.txt")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    built(NEW).save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "passages.jsonl").read_text() == "changed by hand"
    assert ids_in(tmp_path) == [one.id for one in NEW]


class TestVectors:
    """Vectors of a user's own encoder, or made elsewhere, are checked where they come in."""

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (lambda rows: [[float("nan")] * 4] * rows, "number 0 holds what is no finite number"),
            (lambda rows: [[1e300] * 4] * rows and [[float("inf")] * 4] * rows, "no finite number"),
            (lambda rows: [[0.0] * 4] * rows, "number 0 is zero"),
            (lambda rows: [[1.0] * 4] * (rows + 1), "vectors of shape"),
            (lambda rows: [1.0] * rows, "vectors of shape"),
            (lambda rows: [[1.0], [1.0, 2.0]] * rows, "no array of numbers"),
            (lambda rows: [["a"] * 4] * rows, "vectors of type"),
            (lambda rows: [[1j] * 4] * rows, "vectors of type"),
            (lambda rows: [[]] * rows, "vectors of 0 dimensions"),
            (lambda rows: None, "vectors of type object"),
        ],
    )
    def test_what_is_refused(self, wrong, message):
        with pytest.raises(DataError, match=message):
            FaissRetriever.build(OLD, Counting(wrong))
        if (vectors := wrong(len(OLD))) is not None:  # else they are made here
            with pytest.raises(DataError, match=message):
                FaissRetriever.build(OLD, Counting(), vectors=vectors)
        with pytest.raises(DataError, match=message):
            Counting(wrong).encode_queries(["why?"])
        index = built(OLD)
        index.query_encoder = Counting(wrong)
        with pytest.raises(DataError, match=message):
            index("why?")

    def test_queries_of_another_dimension(self):
        index = built(OLD)
        index.query_encoder = Counting(lambda rows: [[1.0] * 5] * rows)
        with pytest.raises(DataError, match="vectors of 5 dimensions, but 4 are needed"):
            index("why?")

    def test_other_lengths_and_types_are_brought_to_unit_vectors(self):
        import numpy as np

        plain = built(OLD)
        for change in (
            lambda one: one * 7.5,
            lambda one: one.astype("float64"),
            lambda one: (one * 100).astype("int32"),
        ):
            vectors = change(plain.vectors([one.id for one in OLD]))
            index = built(OLD, vectors=vectors)
            assert np.linalg.norm(index.vectors(["old1", "old7"]), axis=1) == pytest.approx(1, abs=1e-6)
            assert index("xx", k=1).passages[0].id == "old2"
        exact = plain.vectors([one.id for one in OLD])
        assert (built(OLD, vectors=exact).vectors([one.id for one in OLD]) == exact).all()  # to the bit


@pytest.mark.parametrize(
    "name", ["file/index", "program/index", "circle", "x" * 300], ids=["file", "program", "circle", "long"]
)
def test_a_place_where_no_index_can_be_is_told_before_anything_is_encoded(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "program").mkdir()
    for one in ("manifest.json", "program.json"):
        (tmp_path / "program" / one).touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(SettingsError, match="give a new folder, or an index's"):
        index_saving.check_place(tmp_path / name)


def test_an_index_is_saved_where_a_link_will_lead(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "far")
    built(OLD).save(tmp_path / "link")
    assert ids_in(tmp_path / "far") == ids_in(tmp_path / "link") == [one.id for one in OLD]
