"""Reranking the passages of one query after the other: against CrossEncoder.rank, rerankers and FlagReranker.

    pip install --no-deps -r benchmarks/requirements.txt
    python benchmarks/reranking.py DATA [--queries 200] [--passages 20 100] [--repeats 5]

DATA is a folder with corpus.jsonl, train.jsonl and dev.jsonl (EntailmentBank in FlashRAG's form). The cross-encoder is
all-MiniLM-L6-v2, first trained by RADIO on the labels of some training questions, so that its scores mean something.
Each round takes queries of its own; every query goes to everybody in turn. First the scores are compared: in fp32 with
the peers', in fewer bits and by other runtimes by nDCG@10 on the dev questions.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Row, compared, peak_flops, seconds_of, table
from training import encoder_size

import radio_dspy as radio
from radio_dspy.distillation import Labels
from radio_dspy.evaluation.relevance import compare
from radio_dspy.models.computing import Backend, ScoringPrecision
from radio_dspy.retrievers.requests import rank_requests

ENCODER = "all-MiniLM-L6-v2"
PASSAGES, LEARNT_FROM, CANDIDATES = 3000, 120, 20
OURS: dict[str, tuple[Backend, ScoringPrecision]] = {
    "fp32": ("torch", "fp32"),
    "bf16": ("torch", "bf16"),
    "int8": ("torch", "int8"),
    "onnx fp32": ("onnx", "fp32"),
    "onnx int8": ("onnx", "int8"),
    "openvino fp32": ("openvino", "fp32"),
    "openvino bf16": ("openvino", "bf16"),
    "openvino int8": ("openvino", "int8"),
}
TARGETS = {"fp32": 1.5, "bf16": 3.0, "int8": 3.0}
Scores = Callable[[str, list[str]], Sequence[float]]  # of a query's passages, in their order


def some_passages(data: Path) -> list[radio.Passage]:
    """The passages that the questions' labels name, and others, so that it does not take long to encode them."""
    questions = radio.load_questions(data / "train.jsonl")[:LEARNT_FROM] + radio.load_questions(data / "dev.jsonl")
    wanted = {key for one in questions for key in one.relevant}
    corpus = radio.load_corpus(data / "corpus.jsonl")
    return sorted(corpus, key=lambda one: one.id not in wanted)[: max(PASSAGES, len(wanted))]


def trained(data: Path, index: radio.FaissRetriever, folder: Path) -> str:
    """A cross-encoder that has learnt from labels."""
    optimizer = radio.RADIO(
        retriever=index,
        signals={Labels(): 1.0},
        gate=False,
        learning_rate=6e-5,
        epochs=1,
        training=radio.TrainingSettings(disable_tqdm=True),
        run_dir=folder,
    )
    student = radio.RetrieveRerankAnswer(
        index, radio.Rerank(ENCODER, "cross-encoder", new_head=True), candidates=CANDIDATES
    )
    aligned: Any = optimizer.compile(student, trainset=radio.load_questions(data / "train.jsonl")[:LEARNT_FROM])
    return str(aligned.rerank.weights.checkpoint)


def ours(checkpoint: str, name: str) -> Scores:
    """This library's module, as a program calls it."""
    backend, precision = OURS[name]
    rerank = radio.Rerank(checkpoint, device="cpu", precision=precision, backend=backend)

    def scores(query: str, texts: list[str]) -> Sequence[float]:
        found = rerank(query, texts)
        return [found.scores[place] for place in np.argsort(found.indices)]

    return scores


def cross_encoder_rank(checkpoint: str) -> Scores:
    """sentence-transformers."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(checkpoint, device="cpu")

    def scores(query: str, texts: list[str]) -> Sequence[float]:
        found = model.rank(query, texts)
        return [one["score"] for one in sorted(found, key=lambda one: one["corpus_id"])]

    return scores


def rerankers(checkpoint: str) -> Scores:
    """The package of that name."""
    from rerankers import Reranker

    model = Reranker(checkpoint, model_type="cross-encoder", device="cpu", verbose=0)

    def scores(query: str, texts: list[str]) -> Sequence[float]:
        found = model.rank(query, texts)
        return [one.score for one in sorted(found.results, key=lambda one: one.doc_id)]

    return scores


def flag_reranker(checkpoint: str) -> Scores:
    """FlagEmbedding."""
    from FlagEmbedding import FlagReranker

    model = FlagReranker(checkpoint, devices="cpu", use_fp16=False, max_length=256)
    return lambda query, texts: model.compute_score([(query, text) for text in texts])


PEERS = {"CrossEncoder.rank": cross_encoder_rank, "rerankers": rerankers, "FlagReranker": flag_reranker}


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the peers' progress bars."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def timed(work: dict[str, Scores], rounds: Sequence[Sequence[tuple[str, list[str]]]]) -> dict[str, list[list[float]]]:
    """Seconds of each query by name and round; who comes first changes from query to query."""
    names = list(work)
    for scores in work.values():
        scores(*rounds[0][0])
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in rounds] for name in names}
    for number, queries in enumerate(rounds):
        for place, query in enumerate(queries):
            for name in names[place % len(names) :] + names[: place % len(names)]:
                seconds[name][number].append(seconds_of(functools.partial(work[name], *query)))
    return seconds


def measure(
    data: Path, *, queries: int = 200, passages: Sequence[int] = (20, 100), repeats: int = 5, learn: bool = True
) -> list[Row]:
    """Score the same passages with everybody.

    Args:
        data: The folder.
        queries: Of all rounds together.
        passages: Passages a query, one table after the other.
        repeats: Rounds.
        learn: False leaves the scoring head untrained, which is quicker and says nothing about nDCG.
    """
    index = radio.FaissRetriever.build(some_passages(data), ENCODER)
    questions = radio.load_questions(data / "train.jsonl")[-queries:]
    rows = []
    with tempfile.TemporaryDirectory() as folder, silent():
        checkpoint = trained(data, index, Path(folder)) if learn else untrained(Path(folder))
        work = {f"ours, {one}": ours(checkpoint, one) for one in OURS}
        peers = {name: make(checkpoint) for name, make in PEERS.items()}
        quality = ndcg(data, index, checkpoint) if learn else {}
        peak = peak_flops()
        for count in passages:
            lists = [
                (one.query, [passage.contents for passage in one.passages])
                for one in index.search([one.question for one in questions], count)
            ]
            apart = agreement(work["ours, fp32"], peers, lists[:10])
            rounds = [lists[start::repeats] for start in range(repeats)]
            seconds = timed({**work, **peers}, rounds)
            flops = work_of(checkpoint, lists)
            for name in OURS:
                for peer in PEERS:
                    rows.append(row(name, peer, count, seconds, apart[peer], quality, flops / peak))
    return rows


def untrained(folder: Path) -> str:
    """The encoder with a fresh scoring head, in a form that everybody can load."""
    from radio_dspy.models.cache import open_scorer
    from radio_dspy.models.weights import RerankerWeights

    open_scorer(RerankerWeights(ENCODER, "cross-encoder", new_head=True), "cpu").save(folder / "untrained")
    return str(folder / "untrained")


def agreement(own: Scores, peers: dict[str, Scores], lists: Sequence[tuple[str, list[str]]]) -> dict[str, float]:
    """How far each peer's scores are from ours at most.

    A peer that gives probabilities is compared in their scale.
    """
    apart = {}
    for name, scores in peers.items():
        one = np.concatenate([np.asarray(own(*each)) for each in lists])
        other = np.concatenate([np.asarray(scores(*each)) for each in lists])
        as_probabilities = 1 / (1 + np.exp(-one))
        apart[name] = float(min(np.abs(one - other).max(), np.abs(as_probabilities - other).max()))
    return apart


def ndcg(data: Path, index: radio.FaissRetriever, checkpoint: str) -> dict[str, float]:
    """nDCG@10 on the dev questions, by each runtime in each precision."""
    requests = rank_requests(radio.load_questions(data / "dev.jsonl"), index, CANDIDATES)
    rows = {
        name: radio.Rerank(checkpoint, device="cpu", precision=precision, backend=backend).rank_all(requests)
        for name, (backend, precision) in OURS.items()
    }
    return {name: found["ndcg@10"] for name, found in compare(rows, requests).items()}


def work_of(checkpoint: str, lists: Sequence[tuple[str, list[str]]]) -> float:
    """Floating-point operations of the layers' linear maps on the real tokens; what attention computes comes on top."""
    from radio_dspy.models.cache import open_scorer
    from radio_dspy.models.weights import RerankerWeights

    module: Any = open_scorer(RerankerWeights(checkpoint), "cpu").module
    pairs = [(query, text) for query, texts in lists for text in texts]
    found = module.tokenizer([one for one, _ in pairs], [two for _, two in pairs])["input_ids"]
    return 2.0 * encoder_size(module) * sum(map(len, found))


def row(
    name: str,
    peer: str,
    count: int,
    seconds: dict[str, list[list[float]]],
    apart: float,
    quality: dict[str, float],
    limit: float,
) -> Row:
    """One line: ``limit`` is the seconds that fp32's peak would take for everything."""
    own = seconds[f"ours, {name}"]
    ratio, spread = compared({"ours": list(map(sum, own)), peer: list(map(sum, seconds[peer]))}, "ours", peer)
    each = sorted(second for one in own for second in one)
    p50, p95 = (1000 * float(np.percentile(each, at)) for at in (50, 95))
    if name == "fp32":
        agree = f"scores at most {apart:.0e} apart"
    elif quality:
        agree = f"nDCG@10 {quality[name]:.4f}, in fp32 {quality['fp32']:.4f}"
    else:
        agree = "nDCG@10 not looked at"
    return Row(
        f"reranking {count}, {name}",
        f"{count * len(each) / sum(each):.0f} passages/s, p50 {p50:.0f} ms, p95 {p95:.0f} ms",
        f"{peer} {count * len(each) / sum(map(sum, seconds[peer])):.0f} passages/s",
        ratio,
        TARGETS[OURS[name][1]],
        "at least",
        f"{spread}; {agree}",
        f"{limit / sum(each):.0%} of fp32 FLOP/s",
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--passages", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(table(measure(options.data, queries=options.queries, passages=options.passages, repeats=options.repeats)))


if __name__ == "__main__":
    main()
