"""What smaller and faster FAISS indexes lose: recall of an exact search's candidates, bytes a passage, time.

    python benchmarks/index_types.py DATA

Encodes the passages and training questions of every corpus under DATA with all-MiniLM-L6-v2 (minutes, once a run) and
searches 50 candidates. It says what compression costs; what it costs to look into a part of the lists only, at a
hundred million passages, has to be measured there.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import faiss
import numpy as np

import radio_dspy as radio
from radio_dspy.retrievers.faiss_index import recall_of

CANDIDATES = 50
# FAISS' names. At a hundred million passages IVF128 becomes IVF1048576_HNSW32; what follows the comma stays.
TYPES = ["Flat", "SQ8", "IVF128,Flat", "IVF128,SQ8", "IVF128,PQ64", "IVF128,PQ32", "HNSW32,Flat"]
PROBED = 16  # of the 128 lists
REPEATS = 5


def vectors_under(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Passages and questions as vectors."""
    encoder = radio.Encoder("all-MiniLM-L6-v2")
    passages, questions = [], []
    for corpus in sorted(data.rglob("corpus.jsonl")):
        if (corpus.parent / "train.jsonl").exists():
            passages += radio.load_corpus(corpus)
            questions += [one.question for one in radio.load_questions(corpus.parent / "train.jsonl")]
    if not passages:
        raise SystemExit(f"{data}: holds no corpus.jsonl with a train.jsonl beside it.")
    return encoder.encode_passages(passages), encoder.encode_queries(questions)


def main() -> int:
    """Build each type on the same vectors and compare what it finds with the exact search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder that holds corpora, at any depth")
    passages, queries = vectors_under(parser.parse_args().data)
    print(f"{len(passages)} passages, {len(queries)} questions, {CANDIDATES} candidates\n")
    print("| index | recall of the exact candidates | bytes a passage | built in | a search |")
    print("| --- | --- | --- | --- | --- |")
    exact = np.empty(0)
    for name in TYPES:
        index = faiss.index_factory(passages.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        started = time.process_time()
        index.train(passages)
        index.add(passages)
        built = time.process_time() - started
        if "IVF" in name:
            faiss.extract_index_ivf(index).nprobe = PROBED
        seconds = []
        for _ in range(REPEATS):
            started = time.process_time()
            found = index.search(queries, CANDIDATES)[1]
            seconds.append((time.process_time() - started) / len(queries))
        exact = found if name == "Flat" else exact
        recall = recall_of(exact, found)
        size = faiss.serialize_index(index).nbytes / len(passages)
        print(f"| {name} | {recall:.3f} | {size:.0f} | {built:.1f} s | {np.median(seconds) * 1e6:.0f} us |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
