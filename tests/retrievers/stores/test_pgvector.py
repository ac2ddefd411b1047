"""PostgreSQL as it is found: indexes, schemas, types of ids, connections of others."""

import json
import multiprocessing
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from radio_dspy import PgVectorRetriever
from radio_dspy.core.errors import DataError, SettingsError, StoreError
from radio_dspy.core.passages import Passage
from radio_dspy.retrievers.stores.postgres import Connection
from tests.retrievers.stores.engines import SECRET, PgVector

SIZE = 384


@pytest.fixture(scope="module")
def passages():
    return [Passage(str(row), f"passage {row}", metadata={"tenant": f"t{row % 2}"}) for row in range(300)]


@pytest.fixture(scope="module")
def vectors():
    found = np.random.default_rng(0).standard_normal((300, SIZE), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def engine(tmp_path_factory, passages, vectors):
    found = PgVector(tmp_path_factory.mktemp("pg"))
    found.fill("passages", passages, vectors)
    yield found
    found.close()


@pytest.fixture(scope="module")
def opened(engine, small):
    return engine.open("passages", small)


def assert_enough_by_index(engine, small, table):
    """Ask for many passages where PostgreSQL may not read the whole table instead."""
    engine.connection.execute("ALTER DATABASE postgres SET enable_seqscan = off")
    try:
        found = engine.open(table, small)
        assert len(found("why?", k=120).passages) == 120
        assert len(found("why?", k=120, filter={"tenant": "t1"}).passages) == 120
    finally:
        engine.connection.execute("ALTER DATABASE postgres RESET enable_seqscan")


def test_a_graph_gives_as_many_as_are_asked_for(engine, small, passages, vectors):
    """Left alone, HNSW looks at 40 rows and filters them afterwards."""
    engine.fill("graph", passages, vectors, "vector_cosine_ops")
    assert_enough_by_index(engine, small, "graph")


def test_columns_as_metadata_and_a_condition_of_ones_own(engine, small):
    found = engine.open("passages", small, metadata=["tenant"], where="text LIKE '%1%' AND id <> '{}'", k=400)
    passages = found("why?").passages
    assert len(passages) == sum("1" in str(row) for row in range(300))
    assert {one.metadata["tenant"] for one in passages} == {"t0", "t1"}
    assert {one.metadata["tenant"] for one in found("why?", filter={"tenant": "t0"}).passages} == {"t0"}
    assert found.store.passages(["2", "1"]) == found.store.passages(["1"])  # the condition holds for ids, too
    with pytest.raises(SettingsError, match="filter names 'nobody'"):
        found("why?", filter={"nobody": 1})
    bound = engine.open("passages", small, filter={"tenant": "t0"}, k=3)
    assert [one.metadata for one in bound("why?").passages] == [{"tenant": "t0"}] * 3


def test_numbers_as_ids_a_schema_and_half_vectors(engine, small, passages, vectors):
    engine.connection.execute('CREATE SCHEMA "My docs"')
    engine.connection.execute(
        f'CREATE TABLE "My docs".pages ("Doc" bigint PRIMARY KEY, body varchar(99), "vec""tor" halfvec({SIZE}))'
    )
    for one, vector in zip(passages[:20], vectors[:20], strict=True):
        engine.connection.execute(
            'INSERT INTO "My docs".pages VALUES (%s, %s, %s)', (int(one.id), one.text, str(vector.tolist()))
        )
    names = {"id": "Doc", "text": "body", "embedding": 'vec"tor'}
    found = PgVectorRetriever(engine.uri, "My docs.pages", small, **names)
    assert found("why?", k=1).passages[0].id in {one.id for one in passages[:20]}
    np.testing.assert_allclose(found.vectors(["3", "1"]), vectors[[3, 1]], atol=1e-3)
    assert [one.id for one in found.store.passages(["3", "no number", "999", "1"])] == ["3", "1"]


def test_a_connection_of_the_users_stays_as_it_is(engine, small):
    import psycopg

    with psycopg.connect(engine.uri) as connection:
        found = PgVectorRetriever(connection, "passages", small)
        assert len(found("why?", k=5).passages) == 5
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        connection.execute("CREATE TEMP TABLE mine (x int)")  # a transaction of the user's: still theirs to write in
        assert len(found("why?", k=5).passages) == 5
        connection.execute("INSERT INTO mine VALUES (1)")
        connection.rollback()


def test_many_threads_share_a_connection(opened):
    expected = [one.id for one in opened("question 3", k=10).passages]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: opened(f"question {row % 4}", k=10), range(40)))
    assert [one.id for one in found[3].passages] == expected
    assert all([one.id for one in found[row].passages] == expected for row in range(3, 40, 4))


def _ask(connection, queue):
    with connection.cursor() as cursor:
        queue.put(cursor.execute("SELECT pg_backend_pid()").fetchone()[0])


def test_a_forked_process_opens_its_own(engine):
    connection = Connection(engine.uri)
    with connection.cursor() as cursor:
        ours = cursor.execute("SELECT pg_backend_pid()").fetchone()[0]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_ask, args=(connection, queue))
    child.start()
    theirs = queue.get(timeout=30)
    child.join(timeout=30)
    assert theirs != ours
    with connection.cursor() as cursor:
        assert cursor.execute("SELECT pg_backend_pid()").fetchone()[0] == ours


def test_what_it_opens_cannot_write(engine):
    import psycopg

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), Connection(engine.uri).cursor() as cursor:
        cursor.execute("DELETE FROM passages")


def test_after_a_connection_was_cut_the_next_call_opens_one(engine, opened):
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    engine.connection.execute(query + " AND backend_type = 'client backend'")
    with pytest.raises(StoreError, match="passages"):
        opened("why?")
    assert len(opened("why?", k=2).passages) == 2


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/db",
        f"host=127.0.0.1 port=1 user=me password={SECRET}",
        f"postgresql://me:{SECRET}@127.0.0.1:port/db",
        f"password={SECRET} {SECRET} x",
    ],
)
def test_a_server_that_is_not_there_and_an_address_that_is_none(address, small):
    with pytest.raises((StoreError, SettingsError)) as caught:
        PgVectorRetriever(address, "passages", small)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_what_is_missing(engine, small):
    with pytest.raises(StoreError, match="no such table"):
        engine.open("nowhere", small)
    engine.connection.execute("CREATE DATABASE plain")
    with pytest.raises(StoreError, match="run CREATE EXTENSION vector"):
        PgVectorRetriever(engine.uri.replace("/postgres?", "/plain?"), "passages", small)
    with pytest.raises(SettingsError, match="'text' is of type text, not vector"):
        engine.open("passages", small, embedding="text")
    with pytest.raises(DataError, match=r"id 't[01]' is there more than once"):
        engine.open("passages", small, id="tenant", metadata=())


def test_sql_in_names_and_values_stays_text(engine, small):
    before = engine.state("passages")
    for name in ("passages; DROP TABLE passages", 'passages" WHERE true; --'):
        with pytest.raises(StoreError):
            engine.open(name, small)
    found = engine.open("passages", small)
    assert found("why?", filter={"tenant": "t0'; DROP TABLE passages; --"}).passages == []
    assert found("why?", filter={"x' = 'x": "y"}).passages == []
    assert found.store.passages(["1'; DROP TABLE passages; --"]) == []
    assert engine.state("passages") == before


def test_lists_are_searched_until_there_are_enough(engine, small, passages, vectors):
    """Left alone, IVFFlat looks into one list and filters what it holds."""
    engine.fill("listed", passages, vectors)
    engine.connection.execute("CREATE INDEX ON listed USING ivfflat (embedding vector_cosine_ops)")
    assert_enough_by_index(engine, small, "listed")


def test_rows_that_are_no_passages_and_lists_in_metadata(engine, small, passages, vectors):
    engine.connection.execute(
        f"CREATE TABLE gaps (id text, text text, embedding vector({SIZE}), metadata jsonb, tags text[], years int[])"
    )
    for one, vector in zip(passages[:30], vectors, strict=False):
        row = int(one.id)
        tags, years = ["odd" if row % 2 else "even", "all"], [row % 3]
        said = json.dumps({"tags": tags, "tag": tags[0]})
        key, text = None if row == 28 else one.id, None if row == 29 else one.text
        engine.connection.execute(
            "INSERT INTO gaps VALUES (%s, %s, %s, %s, %s, %s)", (key, text, str(vector.tolist()), said, tags, years)
        )
    found, odd = engine.open("gaps", small, title=None, k=50), [str(row) for row in range(28) if row % 2]
    assert {one.id for one in found("why?").passages} == {str(row) for row in range(28)}
    for given in ({"tags": "odd"}, {"tag": "odd"}, {"tags": ["odd", "none"], "tag": ["odd"]}):
        assert sorted(one.id for one in found("why?", filter=given).passages) == sorted(odd)
    columns = engine.open("gaps", small, title=None, k=50, metadata=["tags", "years"])
    assert sorted(one.id for one in columns("why?", filter={"tags": ["odd", "none"]}).passages) == sorted(odd)
    assert len(columns("why?", filter={"years": [1, 2]}).passages) == 18


def test_names_in_quotes_a_comment_and_a_pool(engine, small, passages, vectors):
    engine.connection.execute('CREATE SCHEMA "Sch.1"')
    engine.fill('"Sch.1"."Ta""b.le"', passages[:9], vectors[:9])
    found = engine.open('"Sch.1"."Ta""b.le"', small, where="text <> '' -- all")
    assert len(found("why?").passages) == 9
    with pytest.raises(SettingsError, match="must be texts, got"):
        engine.open("passages", small, where=7)

    import psycopg

    class Pool:
        def getconn(self):
            raise AssertionError("taken without being given back")

        def connection(self):
            return psycopg.connect(engine.uri)

    assert len(PgVectorRetriever(Pool(), "passages", small)("why?", k=5).passages) == 5
