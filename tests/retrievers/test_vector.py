"""Any store with vectors as a first stage: search, filters, metadata, and a compile that equals FAISS's."""

import copy
import json
from dataclasses import replace

import dspy
import numpy as np
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import Rerank, VectorRetriever, aligned_retriever
from radio_dspy.core.errors import DataError, SettingsError, StoreError
from radio_dspy.core.passages import Passage
from radio_dspy.datasets.loading import load_corpus
from radio_dspy.retrievers import FaissRetriever
from tests.retrievers.test_aligned import EXAMPLES, PASSAGES, QUERY, optimizer

CORPUS = [
    replace(one, metadata={"tenant": "even" if row % 2 == 0 else "odd", "row": row, "checked": row == 1})
    for row, one in enumerate(PASSAGES)
]


class ArrayStore:
    """A store of a user's own: two lists and a dictionary."""

    name = "the array"

    def __init__(self, passages, vectors):
        self.held = {one.id: (one, vector) for one, vector in zip(passages, vectors, strict=True)}
        self.dimension = vectors.shape[1]
        self.searches = 0
        self.down = False

    def search(self, vectors, k, filter=None):
        self.searches += 1
        if self.down:
            raise StoreError("the array: does not answer; start it and compile again.")
        found = []
        for query in vectors:
            hits = [
                (passage, float(vector @ query))
                for passage, vector in self.held.values()
                if all(
                    passage.metadata.get(name) in (value if isinstance(value, list) else [value])
                    for name, value in (filter or {}).items()
                )
            ]
            found.append(sorted(hits, key=lambda hit: -hit[1])[:k])
        return found

    def vectors(self, ids):
        return np.array([self.held[one][1] for one in ids], dtype=np.float32)

    def passages(self, ids):
        return [self.held[one][0] for one in ids if one in self.held]

    def __deepcopy__(self, memo):
        raise TypeError("a connection cannot be copied")


@pytest.fixture(scope="module")
def index(small):
    return FaissRetriever.build(CORPUS, encoder=small, k=5)


@pytest.fixture
def store(index):
    return ArrayStore(CORPUS, index.vectors([one.id for one in CORPUS]))


@pytest.fixture
def retriever(store, small):
    return VectorRetriever(store, small, k=5)


def test_any_store_ranks_as_faiss_does(retriever, index):
    questions = [QUERY, "Why is the jug cool?"]
    for one, other in zip(retriever.search(questions, 8), index.search(questions, 8), strict=True):
        assert one.ids == other.ids
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
        assert one.passages == other.passages
    assert [one.metadata["row"] for one in retriever(QUERY).passages] == [
        one.metadata["row"] for one in index(QUERY).passages
    ]


def test_copies_share_the_store(retriever, store):
    assert copy.deepcopy(retriever).store is store
    assert retriever.deepcopy().store is store


FILTERS = [
    ({"tenant": "odd"}, [1, 3, 5, 7]),
    ({"tenant": "odd", "row": [1, 2, 3]}, [1, 3]),
    ({"row": 4}, [4]),
    ({"checked": True}, [1]),
    ({"tenant": "none"}, []),
    ({"absent": "x"}, []),
]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize(("asked", "rows"), FILTERS)
def test_faiss_filters_by_metadata(index, small, asked, rows, kind):
    vectors = index.vectors([one.id for one in CORPUS])
    built = FaissRetriever.build(CORPUS, small, vectors=vectors, kind=kind)
    found = built(QUERY, k=8, filter=asked)
    everything = index(QUERY, k=8)
    wanted = [one.id for one in everything.passages if one.metadata["row"] in rows]
    assert [one.id for one in found.passages] == wanted
    scores = dict(zip((one.id for one in everything.passages), everything.scores, strict=True))
    assert found.scores == pytest.approx([scores[one] for one in wanted], abs=1e-5)


def test_many_matching_rows_of_an_approximate_index_go_through_it(monkeypatch, small, rng_vectors):
    monkeypatch.setattr("radio_dspy.retrievers.faiss_index._BLOCK", 50)
    corpus = [Passage(str(row), "text", metadata={"half": row % 2}) for row in range(len(rng_vectors))]
    for kind in ("hnsw", "ivf"):
        built = FaissRetriever.build(corpus, small, vectors=rng_vectors, kind=kind, recall=1)
        found = built.store.search(rng_vectors[:4], 5, {"half": 1})
        exact = rng_vectors[:4] @ rng_vectors[1::2].T
        for hits, scores in zip(found, exact, strict=True):
            assert {int(passage.id) % 2 for passage, _ in hits} == {1}
            assert hits[0][1] == pytest.approx(scores.max(), abs=1e-5)


@pytest.fixture
def rng_vectors():
    vectors = np.random.default_rng(3).normal(size=(400, 16)).astype("float32")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_one_and_true_are_two_values(small, index):
    corpus = [replace(PASSAGES[0], metadata={"n": 1}), replace(PASSAGES[1], metadata={"n": True})]
    built = FaissRetriever.build(corpus, small)
    assert [one.id for one in built(QUERY, filter={"n": True}).passages] == [corpus[1].id]
    assert [one.id for one in built(QUERY, filter={"n": 1}).passages] == [corpus[0].id]


def test_a_call_narrows_what_its_retriever_is_bound_to_and_never_widens_it(store, small):
    bound = VectorRetriever(store, small, filter={"tenant": "odd"})
    assert {one.metadata["row"] for one in bound(QUERY).passages} == {1, 3, 5, 7}
    assert {one.metadata["row"] for one in bound(QUERY, filter={"row": [0, 1]}).passages} == {1}
    assert bound(QUERY, filter={"tenant": "even"}).passages == []
    assert {one.metadata["row"] for one in bound(QUERY, filter={"tenant": ["even", "odd"]}).passages} == {1, 3, 5, 7}


@pytest.mark.parametrize("wrong", ["tenant", ["tenant"], {"tenant": {"$ne": "x"}}, {1: "x"}, {"a": [["x"]]}])
def test_a_filter_that_no_store_can_compare(retriever, wrong):
    with pytest.raises(SettingsError, match="filter"):
        retriever(QUERY, filter=wrong)


def test_metadata_is_saved_with_the_index_and_loaded(index, tmp_path, small):
    index.save(tmp_path / "index")
    assert list(FaissRetriever.load(tmp_path / "index", encoder=small).passages) == CORPUS


def test_metadata_must_be_json(small):
    with pytest.raises(DataError, match="metadata"):
        FaissRetriever.build([Passage("a", "Ice floats.", metadata={"x": object()})], small)


def test_a_corpus_keeps_its_metadata(tmp_path):
    rows = [{"id": "a", "text": "Ice floats.", "metadata": {"tenant": "acme", "page": 3}}, {"id": "b", "text": "Salt."}]
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert [dict(one.metadata) for one in load_corpus(file)] == [{"tenant": "acme", "page": 3}, {}]


def test_a_compile_from_any_store_equals_one_from_faiss(index, retriever, tmp_path):
    """The groups, and the weights of the query side, without a write and without encoding passages again."""
    aligned = {}
    for name, first_stage in {"faiss": index, "array": retriever}.items():
        student = RetrieveRerankAnswer(first_stage, Rerank(index.encoder, "bi-encoder"), candidates=8, k=3)
        aligned[name] = optimizer(tmp_path / name).compile(student, trainset=EXAMPLES)
    one, other = ([*map(json.loads, (tmp_path / name / "groups.jsonl").open())] for name in aligned)
    for group, same in zip(one, other, strict=True):
        assert group.pop("scores") == pytest.approx(same.pop("scores"), abs=1e-4)  # rounded, from sums in another order
        assert group == same
    found = [aligned_retriever(program).search([QUERY], 8)[0] for program in aligned.values()]
    assert found[0].ids == found[1].ids
    assert found[0].scores == pytest.approx(found[1].scores, abs=1e-6)
    assert found[0].scores != pytest.approx(index.search([QUERY], 8)[0].scores, abs=1e-4)


class OfOneTenant(dspy.Module):
    def __init__(self, retriever, tenant):
        super().__init__()
        self.retriever, self.tenant = retriever, tenant
        self.rerank = Rerank(retriever.encoder, "bi-encoder")

    def forward(self, question):
        found = self.retriever(question, k=3, filter={"tenant": self.tenant})
        return self.rerank(question, found.passages)


@pytest.mark.parametrize("bound", [True, False], ids=["retriever", "call"])
def test_a_filter_holds_in_training_too(index, store, small, tmp_path, bound):
    if bound:
        own = VectorRetriever(store, small, filter={"tenant": "odd"})
        student = RetrieveRerankAnswer(own, Rerank(small, "bi-encoder"), candidates=4, k=3)
    else:
        student = OfOneTenant(index, "odd")
    optimizer(tmp_path).compile(student, trainset=EXAMPLES)
    tenants = {one.id: one.metadata["tenant"] for one in CORPUS}
    groups = [*map(json.loads, (tmp_path / "groups.jsonl").open())]
    ids = {key for group in groups for key in [group["positive"], *group["negatives"]]}
    assert {tenants[key] for key in ids} == {"odd"}


def test_random_negatives_of_a_store_without_its_corpus_at_hand(retriever, tmp_path):
    student = RetrieveRerankAnswer(retriever, Rerank(retriever.encoder, "bi-encoder"), candidates=8, k=3)
    with pytest.raises(SettingsError, match="random_negatives"):
        optimizer(tmp_path, random_negatives=2).compile(student, trainset=EXAMPLES)


def test_labels_are_looked_up_by_id(retriever, tmp_path):
    student = RetrieveRerankAnswer(retriever, Rerank(retriever.encoder, "bi-encoder"), candidates=8, k=3)
    labelled = [EXAMPLES[0].copy(relevant=["nowhere"]), *EXAMPLES[1:]]
    with pytest.raises(DataError, match="nowhere"):
        optimizer(tmp_path / "one").compile(student, trainset=labelled)


def test_a_store_that_is_down_says_so_and_the_compile_goes_on_later(retriever, store, tmp_path):
    student = RetrieveRerankAnswer(retriever, Rerank(retriever.encoder, "bi-encoder"), candidates=8, k=3)
    store.down = True
    with pytest.raises(StoreError, match="the array"):
        optimizer(tmp_path).compile(student, trainset=EXAMPLES)
    store.down = False
    optimizer(tmp_path).compile(student, trainset=EXAMPLES)
