"""From candidates to preference groups: questions a second against the paper's way, which encodes candidates again.

    python benchmarks/preferences.py DATA [--sample 60] [--repeats 5]

DATA is a folder with corpus.jsonl, train.jsonl and rationales_*.jsonl (EntailmentBank in FlashRAG's form): all its
questions, 50 candidates each, whose first-stage search belongs to neither side. The peer is the method of the paper's
published scripts, which encode all candidates again for every question, in plain sentence-transformers: a vector of
``question. answers. rationale``, one of each candidate, cosines, min-max, the weighted sum, the positions of
``shift``. It is timed twice: with a call of the encoder for each candidate, and with one for all candidates of a
question. It runs on a sample of the questions, ours on all of them, and both are given per question.

Ours reads the candidates' vectors from the retriever's index where the encoder is the same, and encodes each distinct
candidate once where it is another. The other encoder is the same weights without an index, so that speed is compared
on the same model. Guides have to be encoded by both sides: the note says how many tokens each of them reads, and
hence what encoding less can bring at most.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Row, compared, interleaved, peak_flops, table
from training import encoder_size

import radio_dspy as radio
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation import RationaleSimilarity, RetrievalScore
from radio_dspy.distillation.preferences.building import build_groups
from radio_dspy.distillation.teacher.ranking import fused_rankings
from radio_dspy.rerankers.rationale import guide
from radio_dspy.retrievers.requests import rank_requests

ENCODER = "all-MiniLM-L6-v2"
CANDIDATES, WEIGHT = 50, 0.5
SHIFT = (0, 3, 4, 6, 9, 13, 18)  # positions of the positive and of the negatives
EQUAL = 1e-5
CALL_A_QUESTION, CALL_A_CANDIDATE = "a call a question", "a call a candidate"
TITLES = {"same": "the retriever's encoder", "another": "another encoder"}


def questions_of(data: Path, count: int | None) -> tuple[list[RankRequest], radio.FaissRetriever]:
    """The questions with their candidates and rationales, and the index that found these."""
    index = radio.FaissRetriever.build(radio.load_corpus(data / "corpus.jsonl"), radio.Encoder(ENCODER, batch_size=64))
    rationales: dict[str, str] = {}
    for path in sorted(data.glob("rationales_*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rationales |= {str(row["id"]): row["rationale"] for row in rows}
    asked = rank_requests(radio.load_questions(data / "train.jsonl")[:count], index, CANDIDATES)
    return [replace(one, rationale=rationales.get(one.id, "")) for one in asked], index


def papers_way(model: Any, requests: Sequence[RankRequest]) -> list[tuple[np.ndarray, list[str]]]:
    """Rationale scores and the texts of the group of each question, one question after the other."""
    found = []
    for one in requests:
        texts = [passage.contents for passage in one.candidates]
        query = model.encode(guide(one.query, one.answers, one.rationale), normalize_embeddings=True)
        scores = model.encode(texts, normalize_embeddings=True) @ query
        fused = WEIGHT * scaled(scores) + (1 - WEIGHT) * scaled(np.array(one.scores))
        order = np.argsort(-fused, kind="stable")
        found.append((scores, [texts[order[position]] for position in SHIFT]))
    return found


class OneByOne:
    """The same model with a call for each text."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, texts: str | list[str], **settings: Any) -> np.ndarray:
        """One vector, or one for each text."""
        if isinstance(texts, str):
            return self._model.encode(texts, **settings)
        return np.stack([self._model.encode(one, **settings) for one in texts])


def scaled(scores: np.ndarray) -> np.ndarray:
    """Min-max."""
    return (scores - scores.min()) / (scores.max() - scores.min())


def our_way(similarity: RationaleSimilarity, requests: Sequence[RankRequest]) -> list[list[str]]:
    """The texts of the group of each question."""
    rankings = fused_rankings(requests, {similarity: WEIGHT, RetrievalScore(): 1 - WEIGHT})
    groups, _ = build_groups(requests, rankings)
    return [list(one.texts) for one in groups]


def apart(similarity: RationaleSimilarity, model: Any, requests: Sequence[RankRequest]) -> tuple[float, int]:
    """The largest difference of two scores, and how many groups are the same."""
    theirs = papers_way(model, requests)
    ours = similarity.score(requests)
    most = max(float(np.abs(one - other).max()) for one, (other, _) in zip(ours, theirs, strict=True))
    same = sum(one == other for one, (_, other) in zip(our_way(similarity, requests), theirs, strict=True))
    return most, same


def measure(data: Path, *, questions: int | None = None, sample: int = 60, repeats: int = 5) -> list[Row]:
    """Score, fuse and sample with the retriever's encoder and with another one.

    Args:
        data: The folder.
        questions: How many; None takes all.
        sample: Questions for the peer, evenly spread.
        repeats: Rounds of the timing.
    """
    from sentence_transformers import SentenceTransformer

    requests, index = questions_of(data, questions)
    some = requests[:: max(1, len(requests) // sample)][:sample]
    model = SentenceTransformer(radio.weights(ENCODER))
    peak = peak_flops()
    layers = encoder_size(model)
    ways = {
        "same": RationaleSimilarity(index.encoder, index=index),
        "another": RationaleSimilarity(radio.Encoder(ENCODER, batch_size=64)),
    }
    differences = {name: apart(way, model, some) for name, way in ways.items()}
    few = some[: max(1, len(some) // 4)]
    asked = {"same": requests, "another": requests, CALL_A_QUESTION: some, CALL_A_CANDIDATE: few}
    work: dict[str, Callable[[], Any]] = {name: _on_all(way, requests) for name, way in ways.items()}
    work[CALL_A_QUESTION] = lambda: papers_way(model, some)
    work[CALL_A_CANDIDATE] = lambda: papers_way(OneByOne(model), few)
    seconds = interleaved(work, repeats)
    each = {name: [one / len(asked[name]) for one in values] for name, values in seconds.items()}
    guides = _tokens(model, [guide(one.query, one.answers, one.rationale) for one in requests])
    candidates = [passage.contents for one in requests for passage in one.candidates]
    distinct, repeated = _tokens(model, set(candidates)), _tokens(model, candidates)
    read = {"same": guides, "another": guides + distinct}
    shown = {name: f"{statistics.median(values) * 1e3:.2f} ms a question" for name, values in each.items()}
    rows = []
    for name, target in (("same", 50.0), ("another", 10.0)):
        most, same = differences[name]
        if most > EQUAL:
            raise SystemExit(f"The scores are {most:.1e} apart, more than {EQUAL:.0e}: not the same work.")
        flops = 2 * read[name] * layers / statistics.median(seconds[name]) / peak
        for peer in (CALL_A_CANDIDATE, CALL_A_QUESTION):
            ratio, spread = compared(each, name, peer)
            rows.append(
                Row(
                    f"preferences, {len(requests):,} questions, {TITLES[name]}",
                    shown[name],
                    f"{peer}, {shown[peer]}",
                    ratio,
                    target,
                    "at least",
                    f"{spread}; peer on {len(asked[peer])} questions; scores at most {most:.0e} apart, {same} of "
                    f"{len(some)} groups the same; reads {read[name]:,} tokens, the paper's way {guides + repeated:,}, "
                    f"{(guides + repeated) / read[name]:.1f} times as many",
                    f"{flops:.0%} of FLOP/s",
                )
            )
    return rows


def _on_all(way: RationaleSimilarity, requests: Sequence[RankRequest]) -> Callable[[], Any]:
    return lambda: our_way(way, requests)


def _tokens(model: Any, texts: Any) -> int:
    """Tokens that the model reads."""
    read = model.tokenizer(list(texts), truncation=True, max_length=model.max_seq_length)["input_ids"]
    return sum(len(one) for one in read)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(table(measure(options.data, sample=options.sample, repeats=options.repeats)))


if __name__ == "__main__":
    main()
