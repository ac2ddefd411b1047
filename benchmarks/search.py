"""Search over 100,000 and 1,000,000 vectors: microseconds a question against dspy.retrievers.Embeddings.

    python benchmarks/search.py DATA [--sizes 100000 1000000] [--repeats 5]

DATA is a folder with corpus.jsonl and train.jsonl (EntailmentBank in FlashRAG's form). Its passages and questions are
encoded with all-MiniLM-L6-v2; the corpora that are searched are grown from these passages, since made-up vectors
without neighbourhoods would say nothing of approximate search: each vector is drawn between a real passage and one of
its 20 nearest, plus noise of 0.3 of its length. The questions are real: 1,000 are searched for (50 candidates), those
that are left over are what the approximate index is tuned with.

The peer compares a question with every passage below 20,000 passages and looks into product-quantized lists above;
both are measured at each size. It is given its best: batches of 32 questions, which is what it gathers at most, from
one caller. The ratio of its quantized search is taken at the first number of probed lists that reaches the recall that
ours has to reach. Times include what comes back: passages and scores for each question.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from measuring import Row, compared, interleaved, peak_bytes, peak_flops, table

import radio_dspy as radio
from radio_dspy.retrievers.faiss_index import read_index, recall_of

ENCODER = "all-MiniLM-L6-v2"
QUERIES, CANDIDATES, DIMENSION = 1000, 50, 384
RECALL = 0.98
ASKED = 0.99  # of the index when it is built: other questions than it was tuned with may find a little less
NEIGHBOURS, NOISE = 20, 0.3
PEER_BATCH = 32  # of Embeddings: more questions at once it does not take
PEER_EXACT = 32  # questions for its exact search, which takes up to seconds each
PEER_PROBES = (16, 32, 64, 128, 256)  # lists; 16 is what it comes with
Work = Callable[[], Any]


class Ready(radio.Encoder):
    """An encoder whose vectors are there already."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        super().__init__(ENCODER)
        self._ready = vectors

    def _encode(self, texts: Sequence[str], *, query: bool, show_progress: bool) -> Any:
        return np.stack([self._ready[text] for text in texts])


@dataclass
class Questions:
    """Real questions: those that are searched for, and those that the approximate index is tuned with."""

    asked: list[str]
    left_over: list[str]
    vectors: dict[str, np.ndarray]


def real_vectors(data: Path) -> tuple[np.ndarray, Questions]:
    """The vectors of the folder's passages, and its questions with theirs."""
    encoder = radio.Encoder(ENCODER, batch_size=64)
    questions = [one.question for one in radio.load_questions(data / "train.jsonl")]
    questions = list(dict.fromkeys(questions))
    vectors = dict(zip(questions, encoder.encode_queries(questions), strict=True))
    return encoder.encode_passages(radio.load_corpus(data / "corpus.jsonl")), Questions(
        questions[:QUERIES], questions[QUERIES:], vectors
    )


def grown(real: np.ndarray, count: int) -> np.ndarray:
    """So many unit vectors, each between a real passage and one of its nearest."""
    draw = np.random.default_rng(0)
    nearest = faiss.knn(real, real, NEIGHBOURS + 1, faiss.METRIC_INNER_PRODUCT)[1][:, 1:]
    found = np.empty((count, DIMENSION), dtype=np.float32)
    for start in range(0, count, 1 << 16):
        block = found[start : start + (1 << 16)]
        one = draw.integers(len(real), size=len(block))
        other = nearest[one, draw.integers(NEIGHBOURS, size=len(block))]
        share = draw.random((len(block), 1), dtype=np.float32)
        block[:] = (1 - share) * real[one] + share * real[other]
        block += NOISE / np.sqrt(DIMENSION) * draw.standard_normal(block.shape, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return found


class Peer:
    """``dspy.retrievers.Embeddings`` on the same vectors."""

    def __init__(self, texts: list[str], vectors: np.ndarray, questions: Questions) -> None:
        from dspy.retrievers import Embeddings

        def embed(asked: list[str]) -> np.ndarray:
            return vectors if len(asked) == len(vectors) else np.stack([questions.vectors[one] for one in asked])

        self.quantized = Embeddings(texts, embed, k=CANDIDATES)
        self.exact = copy.copy(self.quantized)
        self.exact.index = None  # as it is below its threshold

    def ids(self, searched: Any, questions: Sequence[str]) -> list[list[int]]:
        """The rows that it finds, in the largest batches that it makes."""
        found: list[list[int]] = []
        for start in range(0, len(questions), PEER_BATCH):
            batch = searched._batch_forward(list(questions[start : start + PEER_BATCH]))
            found += [rows for _, rows, _ in batch]
        return found

    def raised(self, exact: Sequence[Sequence[int]], questions: Sequence[str]) -> tuple[int, float]:
        """The fewest lists with which its quantized search reaches the recall; else the most that are tried."""
        found = 0.0
        for probes in PEER_PROBES:
            self.quantized.index.nprobe = probes
            found = recall_of(exact, self.ids(self.quantized, questions))
            if found >= RECALL:
                break
        return self.quantized.index.nprobe, found


def rows_of(retriever: Any, questions: Sequence[str]) -> list[list[int]]:
    """The rows that ours finds, all questions in one call."""
    return [[int(one.id) for one in found.passages] for found in retriever.search(questions, CANDIDATES)]


def per_question(seconds: dict[str, list[float]], questions: dict[str, int]) -> dict[str, list[float]]:
    """Seconds a question."""
    return {name: [one / questions[name] for one in values] for name, values in seconds.items()}


def measure(data: Path, *, sizes: Sequence[int] = (100_000, 1_000_000), repeats: int = 5) -> list[Row]:
    """Build, search and load at each size.

    Args:
        data: The folder.
        sizes: Vectors.
        repeats: Rounds of the timing.
    """
    real, questions = real_vectors(data)
    peaks = peak_flops(), peak_bytes()
    return [row for size in sizes for row in at_size(real, questions, size, repeats, peaks)]


def at_size(real: np.ndarray, questions: Questions, size: int, repeats: int, peaks: tuple[float, float]) -> list[Row]:
    """The rows of one size."""
    vectors = grown(real, size)
    passages = [radio.Passage(str(row), f"passage {row}") for row in range(size)]
    encoder = Ready(questions.vectors)
    asked, few = questions.asked, questions.asked[:PEER_EXACT]

    flat, flat_built = timed(lambda: radio.FaissRetriever.build(passages, encoder, vectors=vectors))
    near, near_built = timed(
        lambda: radio.FaissRetriever.build(
            passages,
            encoder,
            vectors=vectors,
            kind="auto",
            dtype="float16",
            recall=ASKED,
            sample_queries=questions.left_over,
        )
    )
    peer, peer_built = timed(lambda: Peer([one.text for one in passages], vectors, questions))

    exact, theirs = rows_of(flat, asked), peer.ids(peer.exact, few)
    agreed = recall_of(theirs, exact[: len(few)])
    reached = recall_of(exact, rows_of(near, asked))
    probes, peer_reached = peer.raised(exact, asked)
    work: dict[str, Work] = {
        "exact": lambda: flat.search(asked, CANDIDATES),
        "near": lambda: near.search(asked, CANDIDATES),
        "peer exact": lambda: peer.ids(peer.exact, few),
        "peer quantized": lambda: peer.ids(peer.quantized, asked),
    }
    counts = {name: len(few) if name == "peer exact" else len(asked) for name in work}
    seconds = per_question(interleaved(work, repeats), counts)
    alone = per_question(
        interleaved({"near": lambda: [near(one, k=CANDIDATES) for one in few], "peer": one_by_one(peer, few)}, repeats),
        {"near": len(few), "peer": len(few)},
    )
    shown = {name: f"{statistics.median(values) * 1e6:,.0f} us" for name, values in seconds.items()}

    flops = 2 * size * DIMENSION / statistics.median(seconds["exact"]) / peaks[0]
    read = compared_vectors(near, asked) * DIMENSION * 2 / statistics.median(seconds["near"]) / peaks[1]
    layout = near.layout
    title = f"search, {size:,} vectors"
    approximate = f"{layout.kind} {layout.dtype}, effort {layout.effort}"
    held = [f"{held_by(one) / 2**20:,.0f} MiB" for one in (flat._index.faiss, near._index.faiss)]
    exact_ratio, exact_spread = compared(seconds, "exact", "peer exact")
    near_ratio, near_spread = compared(seconds, "near", "peer exact")
    same_ratio, same_spread = compared(seconds, "near", "peer quantized")
    alone_ratio, alone_spread = compared(alone, "near", "peer")
    loading = loaded_in(near, encoder, peer, questions)
    quantized = f"{held_by(peer.quantized.index) / 2**20:,.0f} MiB and {size * DIMENSION * 4 / 2**20:,.0f} of vectors"
    note = (
        f"{approximate}, asked for {ASKED}; {layout.recall:.4f} on {len(questions.left_over)} other questions when "
        f"built; in {near_built:.1f} s, {held[1]} (peer {peer_built:.1f} s, {quantized}); {loading}"
    )
    return [
        Row(
            f"{title}, exact",
            shown["exact"],
            f"exact {shown['peer exact']}",
            exact_ratio,
            5.0,
            "at least",
            f"{exact_spread}; same candidates {agreed:.4f}; built in {flat_built:.1f} s, {held[0]}",
            f"{flops:.0%} of FLOP/s",
        ),
        Row(
            f"{title}, approximate, recall",
            f"{reached:.4f}",
            "exact search",
            reached,
            RECALL,
            "at least",
            note,
        ),
        Row(
            f"{title}, approximate",
            shown["near"],
            f"exact {shown['peer exact']}",
            near_ratio,
            20.0,
            "at least",
            near_spread,
            f"{read:.0%} of bytes/s",
        ),
        Row(
            f"{title}, approximate",
            shown["near"],
            f"quantized {shown['peer quantized']}",
            same_ratio,
            20.0,
            "at least",
            f"{same_spread}; the peer's recall {peer_reached:.4f} with {probes} lists, of which it compares the best "
            f"{CANDIDATES * 10} again",
        ),
        Row(
            f"{title}, approximate, one question after the other",
            f"{statistics.median(alone['near']) * 1e6:,.0f} us",
            f"quantized {statistics.median(alone['peer']) * 1e6:,.0f} us",
            alone_ratio,
            1.0,
            "at least",
            f"{alone_spread}; the peer waits for more questions to come",
        ),
    ]


def timed(work: Work) -> tuple[Any, float]:
    """A result, and the seconds that it took."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def one_by_one(peer: Peer, questions: Sequence[str]) -> Work:
    """The peer as a program calls it."""
    return lambda: [peer.quantized(one) for one in questions]


def compared_vectors(retriever: Any, questions: Sequence[str]) -> float:
    """How many stored vectors an approximate index compares with a question."""
    stats = faiss.cvar.hnsw_stats if retriever.layout.kind == "hnsw" else faiss.cvar.indexIVF_stats
    stats.reset()
    retriever.search(questions, CANDIDATES)
    return float(stats.ndis / len(questions))


def held_by(index: Any) -> int:
    """Bytes of a FAISS index."""
    with tempfile.TemporaryDirectory() as folder:
        faiss.write_index(index, f"{folder}/index")
        return Path(folder, "index").stat().st_size


def loaded_in(retriever: Any, encoder: Any, peer: Peer, questions: Questions) -> str:
    """How long loading takes, passages included, until the first question is answered."""
    from dspy.retrievers import Embeddings

    first = questions.asked[:1]

    def ours(memory_map: bool) -> None:
        radio.FaissRetriever.load(folder, encoder, memory_map=memory_map).search(first, CANDIDATES)

    def theirs() -> None:
        loaded = Embeddings.from_saved(f"{folder}/peer", peer.quantized.embedder)
        loaded._batch_forward(first)

    with tempfile.TemporaryDirectory() as folder:
        retriever.save(folder)
        peer.quantized.save(f"{folder}/peer")
        work: dict[str, Work] = {"mapped": lambda: ours(True), "read": lambda: ours(False), "peer": theirs}
        seconds = interleaved(work, 3)
        file = Path(folder, "index.faiss")
        _, vectors = timed(lambda: read_index(file, retriever.layout, len(retriever), memory_map=True))
    middle = {name: f"{statistics.median(values):.2f} s" for name, values in seconds.items()}
    return (
        f"loads in {middle['read']}, mapped in {middle['mapped']}, of which the vectors take {vectors * 1e3:.1f} ms "
        f"(peer {middle['peer']})"
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(table(measure(options.data, sizes=options.sizes, repeats=options.repeats)))


if __name__ == "__main__":
    main()
