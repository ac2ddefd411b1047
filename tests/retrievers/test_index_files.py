"""FAISS files that lie are refused before FAISS reads them: sizes, ids, links and vectors."""

import json
import struct
import tracemalloc

import faiss
import numpy as np
import pytest

from radio_dspy.core.errors import CheckpointError
from radio_dspy.core.files import sha256_of
from radio_dspy.retrievers import FaissRetriever
from radio_dspy.retrievers.faiss_index import build_index, read_index
from radio_dspy.retrievers.index_files import check_index_file
from radio_dspy.retrievers.index_layout import IndexLayout
from tests.retrievers.counting import Counting
from tests.retrievers.test_index_saving import OLD

COUNT, WIDTH = 300, 16
KINDS = [(kind, dtype) for kind in ("flat", "hnsw", "ivf") for dtype in ("float32", "float16")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of every kind."""
    draw = np.random.default_rng(3)
    vectors = draw.standard_normal((COUNT, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folder, found = tmp_path_factory.mktemp("indexes"), {}
    for kind, dtype in KINDS:
        index, layout = build_index(vectors, kind, dtype)
        faiss.write_index(index, str(folder / f"{kind}-{dtype}"))
        found[kind, dtype] = (folder / f"{kind}-{dtype}", layout)
    return found


@pytest.mark.parametrize("key", KINDS, ids="-".join)
def test_what_is_written_is_read(files, key):
    path, layout = files[key]
    for mapped in (False, True):
        assert read_index(path, layout, COUNT, memory_map=mapped).ntotal == COUNT


@pytest.mark.parametrize("key", KINDS, ids="-".join)
def test_sizes_that_are_larger_than_the_file(files, key, tmp_path):
    """Each number of the file in turn says that there is far more: none makes FAISS, or us, take memory for it."""
    path, layout = files[key]
    whole, refused = path.read_bytes(), 0
    tracemalloc.start()
    for at in range(4, min(len(whole) - 8, 400), 4):
        (tmp_path / "index").write_bytes(whole[:at] + struct.pack("<Q", 1 << 34) + whole[at + 8 :])
        try:
            check_index_file(tmp_path / "index", layout, COUNT, contents=False)
        except CheckpointError:
            refused += 1
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    assert refused > 3  # others are numbers that nobody follows, or vectors


@pytest.mark.parametrize("key", KINDS, ids="-".join)
@pytest.mark.parametrize("mapped", [False, True])
def test_any_flipped_byte_is_refused_or_harmless(files, key, mapped, tmp_path):
    """What passes is read and searched: FAISS follows ids and links without looking, and would crash or read on."""
    path, layout = files[key]
    whole = path.read_bytes()
    draw = np.random.default_rng(5)
    places = [*range(0, 120), *draw.integers(120, len(whole), 120)]
    queries = np.eye(3, WIDTH, dtype=np.float32)
    for at in places:
        data = bytearray(whole)
        data[at] ^= 0x80 if at % 2 else 0x11
        (tmp_path / f"index-{at}").write_bytes(data)
        try:
            index = read_index(tmp_path / f"index-{at}", layout, COUNT, memory_map=mapped)
        except CheckpointError:
            continue
        index.search(queries, 10)


def damaged(index, what):
    """A sound index with one thing in it that is not."""
    if what == "a link":
        links = faiss.vector_to_array(index.hnsw.neighbors)
        links[5] = 1 << 30
        faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    elif what == "an entry":
        index.hnsw.entry_point = COUNT + 7
    elif what == "an id":
        lists = index.invlists
        number = next(one for one in range(index.nlist) if lists.list_size(one))
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))[0] = 1 << 40
    elif what == "an id twice":
        lists = index.invlists
        number = next(one for one in range(index.nlist) if lists.list_size(one) > 1)
        ids = faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
        ids[0] = ids[1]
    elif what == "a place":
        places = faiss.vector_to_array(index.direct_map.array)
        places[0] = 7 << 40
        faiss.copy_array_to_vector(places, index.direct_map.array)
    elif what == "places of two":
        places = faiss.vector_to_array(index.direct_map.array)
        places[[5, 6]] = places[[6, 5]]
        faiss.copy_array_to_vector(places, index.direct_map.array)
    elif what == "untrained":
        (faiss.downcast_index(index.storage) if hasattr(index, "storage") else index).is_trained = False
    else:
        vector = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * WIDTH)[:WIDTH]
        vector[...] = {"NaN": np.nan, "a long vector": vector * 3, "zero": 0}[what]
    return index


@pytest.mark.parametrize(
    ("kind", "what", "message"),
    [
        ("hnsw", "a link", "links to passages that there are not"),
        ("hnsw", "an entry", "a graph whose entry is not there"),
        ("ivf", "an id", "ids of passages that there are not"),
        ("ivf", "an id twice", "a passage stands in several lists"),
        ("ivf", "a place", "passages in lists that there are not"),
        ("ivf", "places of two", "in another place than is written down"),
        ("flat", "untrained", "it says that it is not trained"),
        ("hnsw", "untrained", "its parts do not belong together"),
        ("flat", "NaN", "a vector holds what is no finite number"),
        ("flat", "a long vector", "a vector is of length 3, not 1"),
        ("flat", "zero", "a vector is zero"),
    ],
)
def test_what_is_in_it(files, tmp_path, kind, what, message):
    path, layout = files[kind, "float32"]
    faiss.write_index(damaged(faiss.read_index(str(path)), what), str(tmp_path / "index"))
    with pytest.raises(CheckpointError, match=message):
        read_index(tmp_path / "index", layout, COUNT)


@pytest.mark.parametrize("factory", ["SQ8", "PCA8,Flat", "IVF8,SQ8", "HNSW8,SQ8", "Flat-L2"])
def test_kinds_that_are_not_written_here(tmp_path, factory):
    vectors = np.random.default_rng(0).standard_normal((COUNT, WIDTH)).astype(np.float32)
    metric = faiss.METRIC_L2 if factory.endswith("L2") else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(WIDTH, factory.partition("-")[0], metric)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "index"))
    for kind, dtype in KINDS:
        with pytest.raises(CheckpointError, match=r"build the index again"):
            read_index(tmp_path / "index", IndexLayout(kind, dtype, 8, 1.0), COUNT)


def test_a_small_file_whose_manifest_agrees_asks_for_no_memory(tmp_path):
    """Of 54 KB and 17 GB: whoever writes the file writes its hash."""
    FaissRetriever.build(OLD, Counting()).save(tmp_path)
    data = bytearray((tmp_path / "index.faiss").read_bytes())
    struct.pack_into("<i", data, 4, 1 << 15)
    (tmp_path / "index.faiss").write_bytes(data)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"]["index.faiss"] = sha256_of(tmp_path / "index.faiss")
    del manifest["ends"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for mapped in (False, True):
        with pytest.raises(CheckpointError, match=r"numbers for 7 vectors of 32768 dimensions"):
            FaissRetriever.load(tmp_path, Counting(), memory_map=mapped)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_an_index_of_nothing(tmp_path, kind):
    index, layout = build_index(np.eye(3, WIDTH, dtype=np.float32), kind, "float32")
    index.reset()
    faiss.write_index(index, str(tmp_path / "index"))
    with pytest.raises(CheckpointError, match="holds 0 vectors"):
        read_index(tmp_path / "index", layout, 0)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_effort_that_finds_nothing(tmp_path, kind):
    FaissRetriever.build(OLD, Counting(), kind=kind).save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["index"]["effort"] = 0
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="an effort of 0 finds nothing"):
        FaissRetriever.load(tmp_path, Counting())


def test_ids_below_none_in_a_mapped_index(tmp_path):
    """Mapped lists are not looked at when they are opened; what a search finds is."""
    FaissRetriever.build(OLD, Counting(), kind="ivf").save(tmp_path)
    index = faiss.read_index(str(tmp_path / "index.faiss"))
    for number in range(index.nlist):
        if size := index.invlists.list_size(number):
            faiss.rev_swig_ptr(index.invlists.get_ids(number), size)[...] = -7
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["ends"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = FaissRetriever.load(tmp_path, Counting(), memory_map=True)
    with pytest.raises(CheckpointError, match="no vector of a passage"):
        found.search(["a"], 3)
