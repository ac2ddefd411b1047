"""Every store gives what a flat FAISS index gives, and is never written to."""

import copy
import sys
import traceback
from dataclasses import replace

import numpy as np
import pytest

from radio_dspy.core.errors import DataError, MissingExtraError, SettingsError, StoreError
from radio_dspy.core.passages import Passage
from tests.retrievers.stores.engines import ENGINES, SECRET

TENANTS = ("acme", "o\"neill's \\ %s", "globex")
CLOSE = 1e-5


@pytest.fixture(scope="module")
def passages(demo) -> list[Passage]:
    return [
        replace(one, metadata={"tenant": TENANTS[row % 3], "year": 2020 + row % 5, "draft": row % 2 == 0})
        for row, one in enumerate(demo.passages)
    ]


@pytest.fixture(scope="module")
def vectors(passages, small):
    return small.encode_passages(passages)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, tmp_path_factory, passages, vectors):
    found = ENGINES[request.param](tmp_path_factory.mktemp(request.param))
    found.fill("passages", passages, vectors)
    yield found
    found.close()


@pytest.fixture(scope="module")
def opened(engine, small):
    return engine.open("passages", small)


@pytest.fixture(scope="module")
def questions(demo) -> list[str]:
    return [one.question for one in demo.test[:20]]


def expected(passages, vectors, small, questions, k, holds=lambda passage: True):
    """Ids and scores as numpy has them."""
    rows = [row for row, one in enumerate(passages) if holds(one)]
    scores = small.encode_queries(questions) @ vectors[rows].T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [[passages[rows[i]].id for i in line] for line in best], np.take_along_axis(scores, best, axis=1)


def check(found, ids, scores):
    for ranking, names, values in zip(found, ids, scores, strict=True):
        np.testing.assert_allclose(ranking.scores, values, atol=CLOSE)
        assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
        known = dict(zip(names, values, strict=True))
        for one, score in zip(ranking.ids, ranking.scores, strict=True):  # equally near ones may have changed places
            assert abs(known.get(one, values[-1]) - score) < CLOSE


def test_rankings_and_scores_are_those_of_exact_search(opened, passages, vectors, small, questions):
    check(opened.search(questions, 50), *expected(passages, vectors, small, questions, 50))


def test_what_is_found_is_the_whole_passage(opened, passages, questions):
    by_id = {one.id: one for one in passages}
    for one in opened(questions[0], k=10).passages:
        assert one == by_id[one.id]
        assert one.metadata == by_id[one.id].metadata


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ({"tenant": "acme"}, lambda one: one.metadata["tenant"] == "acme"),
        ({"tenant": TENANTS[1]}, lambda one: one.metadata["tenant"] == TENANTS[1]),
        ({"tenant": [TENANTS[1], "globex"]}, lambda one: one.metadata["tenant"] != "acme"),
        ({"year": 2021}, lambda one: one.metadata["year"] == 2021),
        (
            {"year": [2021, 2022], "draft": True},
            lambda one: one.metadata["year"] in (2021, 2022) and one.metadata["draft"],
        ),
        ({"tenant": "nobody"}, lambda one: False),
        ({"year": [2021.0, "2022"]}, lambda one: one.metadata["year"] == 2021),
        ({"tenant": ["acme", 7, True]}, lambda one: one.metadata["tenant"] == "acme"),
    ],
    ids=["text", "quotes", "list", "number", "two", "none", "number and text", "text, number and truth"],
)
def test_filters(opened, passages, vectors, small, questions, given, holds):
    ids, scores = expected(passages, vectors, small, questions[:3], 15, holds)
    check(opened.search(questions[:3], 15, filter=given), ids, scores)
    assert [one.id for one in opened(questions[0], k=15, filter=given).passages] == ids[0]


def test_a_filter_of_the_retriever_is_joined_with_that_of_a_call(engine, passages, vectors, small, questions):
    bound = engine.open("passages", small)
    bound.filter = {"tenant": "acme"}  # as filter= of every retriever over a store sets it
    ids, scores = expected(
        passages,
        vectors,
        small,
        questions[:2],
        10,
        lambda one: one.metadata["tenant"] == "acme" and one.metadata["year"] == 2021,
    )
    check(bound.search(questions[:2], 10, filter={"year": 2021}), ids, scores)


def test_vectors_and_passages_by_id(opened, passages, vectors):
    chosen = [7, 3, 3, 0]
    ids = [passages[row].id for row in chosen]
    np.testing.assert_allclose(opened.vectors(ids), vectors[chosen], atol=CLOSE)
    assert opened.vectors([]).shape == (0, vectors.shape[1])
    assert opened.store.passages([*ids, "nowhere"]) == [passages[row] for row in chosen]
    with pytest.raises(DataError, match="nowhere"):
        opened.vectors([ids[0], "nowhere"])


def test_more_ids_than_a_store_is_asked_for_at_a_time(opened, passages, vectors):
    order = np.random.default_rng(0).permutation(len(passages)).tolist() * 3
    found = opened.vectors([passages[row].id for row in order])
    np.testing.assert_allclose(found, vectors[order], atol=CLOSE)


def test_copies_share_the_store(opened, small, questions):
    assert copy.deepcopy(opened).store is opened.store
    other = opened.with_query_encoder(small)
    assert other.store is opened.store
    np.testing.assert_allclose(other(questions[0], k=3).scores, opened(questions[0], k=3).scores, atol=CLOSE)


def test_nothing_is_written(engine, small, questions, passages):
    before = engine.state("passages")
    retriever = engine.open("passages", small)
    retriever.search(questions, 20, filter={"year": 2021})
    retriever.vectors([one.id for one in passages])
    retriever.store.passages([one.id for one in passages])
    assert engine.state("passages") == before


@pytest.mark.parametrize("place", [0, 1], ids=["cosine", "inner product"])
def test_an_index_of_either_metric_gives_the_same(engine, passages, vectors, small, questions, place):
    if not engine.metrics:
        pytest.skip("has one metric")
    name = f"metric{place}"
    engine.fill(name, passages, vectors, engine.metrics[place])
    found = engine.open(name, small).search(questions, 10)
    check(found, *expected(passages, vectors, small, questions, 10))


def test_another_metric_is_refused(engine, passages, vectors, small):
    if not engine.metrics:
        pytest.skip("has one metric")
    engine.fill("euclid", passages[:300], vectors[:300], engine.metrics[2])
    with pytest.raises(SettingsError, match="compares vectors by"):
        engine.open("euclid", small)


def test_inner_products_of_vectors_that_are_no_unit_vectors_are_refused(engine, passages, vectors, small):
    if not engine.metrics:
        pytest.skip("has one metric")
    engine.fill("long", passages[:300], 2 * vectors[:300], engine.metrics[1])
    with pytest.raises(SettingsError, match="is of length 2, not 1"):
        engine.open("long", small)


def test_another_dimension_is_refused(engine, passages, vectors, small):
    if not engine.metrics:
        pytest.skip("is built by its encoder")
    engine.fill("short", passages[:10], vectors[:10, :100])
    with pytest.raises(SettingsError, match=r"have 100 dimensions, those of .* have 384"):
        engine.open("short", small)


def test_a_field_that_is_missing(engine, small):
    if not engine.metrics:
        pytest.skip("has no names")
    with pytest.raises((StoreError, DataError), match="'body'"):
        engine.open("passages", small, text="body")


def test_a_collection_that_is_missing(engine, small):
    if not engine.metrics:
        pytest.skip("has no names")
    if type(engine).__name__ in ("Chroma", "LanceDB"):
        pytest.skip("its own client opens it")
    with pytest.raises(StoreError, match="nowhere"):
        engine.open("nowhere", small)


def test_an_empty_collection(engine, vectors, small):
    if type(engine).__name__ in ("Faiss", "LanceDB"):
        pytest.skip("makes none")
    engine.fill("empty", [], vectors[:0])
    with pytest.raises(StoreError, match="holds no passage"):
        engine.open("empty", small)


def test_an_id_that_is_there_twice(engine, passages, vectors, small):
    if engine.unique:
        pytest.skip("the engine lets none in")
    twice = [*passages[:20], replace(passages[21], id=passages[0].id)]
    engine.fill("twice", twice, vectors[:21], unique=False)
    with pytest.raises(DataError, match=f"{passages[0].id}.* more than once"):
        engine.open("twice", small)


def check_nearly(found, ids, scores):
    """An approximate index finds most of what is nearest (random vectors are the hardest), with the right scores."""
    shares = []
    for ranking, names, values in zip(found, ids, scores, strict=True):
        known = dict(zip(names, values, strict=True))
        assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
        pairs = [(known[key], value) for key, value in zip(ranking.ids, ranking.scores, strict=True) if key in known]
        assert [value for _, value in pairs] == pytest.approx([value for value, _ in pairs], abs=CLOSE)
        shares.append(len(pairs) / len(names))
    assert np.mean(shares) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_twelve_thousand_passages(name, tmp_path, small):
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((12_000, 384), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    passages = [Passage(f"p{row}", f"passage {row}", metadata={"year": row % 10}) for row in range(len(vectors))]
    engine = ENGINES[name](tmp_path)
    questions = [f"question {row}" for row in range(20)]
    try:
        engine.fill("passages", passages, vectors)
        opened = engine.open("passages", small)
        compare = check if engine.exact else check_nearly
        compare(opened.search(questions, 50), *expected(passages, vectors, small, questions, 50))
        ids, scores = expected(passages, vectors, small, questions, 50, lambda one: one.metadata["year"] == 3)
        found = opened.search(questions, 50, filter={"year": 3})
        assert {passage.metadata["year"] for ranking in found for passage in ranking.passages} == {3}
        compare(found, ids, scores)
    finally:
        engine.close()


def test_a_client_that_is_not_installed(engine, small, monkeypatch):
    if not engine.package:
        pytest.skip("is always installed")
    monkeypatch.setitem(sys.modules, engine.package, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "radio-dspy\[{type(engine).__name__.lower()}\]"'):
        engine.open("passages", small)


def test_a_store_that_dies_raises_one_error_without_secrets(engine, opened, passages, questions):
    """The last test of an engine: it is killed."""
    assert len(opened(questions[0], k=3).passages) == 3
    engine.kill()
    for ask in (lambda: opened(questions[0]), lambda: opened.vectors([passages[0].id])):
        with pytest.raises(StoreError, match="passages") as caught:
            ask()
        said = "".join(traceback.format_exception(caught.value))
        assert SECRET not in said + repr(opened) + repr(opened.store) + opened.store.name
