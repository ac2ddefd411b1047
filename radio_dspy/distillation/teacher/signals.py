"""Signals of the teacher that ask no LM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

import dspy

from radio_dspy.core.attributes import set_inside
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.text import contains_answer
from radio_dspy.core.validation import shown
from radio_dspy.distillation.teacher.null_passage import reads_null, with_null
from radio_dspy.models.encoder import BLOCK, TextEncoder
from radio_dspy.models.open_encoder import as_encoder
from radio_dspy.models.vector_cache import similarities
from radio_dspy.rerankers.rationale import fitting_guide
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.vector import VectorRetriever, needed_vectors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.float32]

logger = logger_of(__name__)
_PART = 8 * BLOCK  # questions whose vectors are held at a time; whole blocks, which come out the same anywhere
_FETCHED = 20  # questions whose candidates' vectors are asked of the index at a time


class Signal(Protocol):
    """One view of which candidates help; higher is better, on any scale.

    One with ``reads_rationale = False`` needs no LM that writes rationales.
    """

    name: str

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """For each question, float32 scores of shape (number of candidates,), in the candidates' order."""


def check_signals(signals: Mapping[Signal, float]) -> None:
    """See that each is a signal with a name of its own.

    Raises:
        SettingsError: If one is none, or there are none, or two have the same name.
    """
    if not isinstance(signals, Mapping) or not signals:
        raise SettingsError(f"signals must be a dict of at least one signal with its weight, got {shown(signals)}.")
    for one in signals:
        named, scores = isinstance(getattr(one, "name", None), str), callable(getattr(one, "score", None))
        if isinstance(one, type) or not named or not scores:
            raise SettingsError(
                f"{shown(one)} is no signal: give an object, not a class, with a text as its name and score(requests); "
                "see docs/add-a-signal.md."
            )
    names = [one.name for one in signals]
    if len(set(names)) < len(names):
        raise SettingsError(f"Signals must have different names, got {names}.")


class RetrievalScore:
    """The first stage's own scores."""

    name = "retrieval"
    reads_rationale = False

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``Signal``."""
        import numpy as np

        return [np.asarray(request.scores, dtype=np.float32) for request in requests]


class RationaleSimilarity:
    """Cosine of passage and ``question. answers. rationale`` (paper, section 3.3).

    A question without a rationale is compared with ``question. answers``.

    Args:
        encoder: An ``Encoder`` or ``RemoteEncoder``, or the name of one.
        index: A retriever, or a hybrid of one, whose stored vectors are used instead of encoding again, if its encoder
            is the same.
        over: Of several rationales of a question (``RationaleExtractor(n=)``), take the ``"mean"`` of a passage's
            similarities or their ``"max"``, which prefers a passage that one of them needs.
        show_progress: Show a progress bar while encoding.

    Example:
        >>> from radio_dspy.core.passages import Passage
        >>> request = RankRequest(
        ...     "q", "Why did it cool?", (Passage("a", "Ice floats."), Passage("b", "Vapour takes heat along.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> scores = RationaleSimilarity("all-MiniLM-L6-v2").score([request])[0]
        >>> bool(scores[1] > scores[0])
        True
    """

    name = "rationale"
    reads_rationale = True

    def __init__(
        self,
        encoder: TextEncoder | str,
        *,
        index: Retriever | None = None,
        over: Literal["mean", "max"] = "mean",
        show_progress: bool = False,
    ) -> None:
        if over not in ("mean", "max"):
            raise SettingsError(f"over must be 'mean' or 'max', got {over!r}.")
        self.encoder = as_encoder(encoder)
        self.over = over
        self._show_progress = show_progress
        stored = None if index is None else needed_vectors(index, "index=")
        self._index = stored if stored is not None and stored.encoder.identity == self.encoder.identity else None

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``Signal``; each distinct passage is encoded once."""
        import numpy as np

        combine = np.max if self.over == "max" else np.mean
        found = self.score_each(requests)
        return [each[0] if len(each) == 1 else combine(each, axis=0).astype(np.float32) for each in found]

    def score_each(self, requests: Sequence[RankRequest]) -> list[list[Scores]]:
        """For each question one array of scores for each of its rationales."""
        counts = [1 + len(one.more_rationales) if self.reads_rationale else 1 for one in requests]
        if max(counts, default=1) == 1:
            return [[scores] for scores in self._similarities(requests)]
        alone = [
            replace(one, rationale=text, more_rationales=())
            for one, count in zip(requests, counts, strict=True)
            for text in (one.rationale, *one.more_rationales)[:count]
        ]
        scores = iter(self._similarities(alone))
        return [list(islice(scores, count)) for count in counts]

    def agreement(self, requests: Sequence[RankRequest]) -> list[float]:
        """How much a question's rationales agree: the largest part of them that puts the same passage first.

        1 for a single one. Source: self-consistency (Wang et al. 2022), of passages in place of answers.
        """
        return [agreement(each) for each in self.score_each(requests)]

    def _similarities(self, requests: Sequence[RankRequest]) -> list[Scores]:
        if self._index is not None:
            parts = (requests[start : start + _PART] for start in range(0, len(requests), _PART))
            return [scores for part in parts for scores in self._by_index(part, self._index)]
        queries = self._guides(requests)
        rows: dict[str, int] = {}
        positions = [[rows.setdefault(passage.contents, len(rows)) for passage in one.candidates] for one in requests]
        encoded = self.encoder.encode_passages(list(rows), show_progress=self._show_progress)
        return [
            similarities(encoded[found], query, self.encoder.name)
            for found, query in zip(positions, queries, strict=True)
        ]

    def encoding(self, encoder: TextEncoder) -> AbstractContextManager[None]:
        """Inside the block another encoder of the same identity works in this one's place."""
        return set_inside(self, "encoder", encoder)

    def _guides(self, requests: Sequence[RankRequest]) -> Scores:
        guides = [
            fitting_guide(self.encoder, one.query, one.answers, one.rationale if self.reads_rationale else "")
            for one in requests
        ]
        cut = sum(not text.startswith(one.query.strip()) for text, one in zip(guides, requests, strict=True))
        if cut:
            logger.warning(
                "%d of %d questions are longer than the encoder's window of %s tokens: their guides hold the start of "
                "the question only, so that the answer is read.", cut, len(guides), self.encoder.window,
            )  # fmt: skip
        return self.encoder.encode_queries(guides, show_progress=self._show_progress)

    def _by_index(self, requests: Sequence[RankRequest], index: VectorRetriever) -> list[Scores]:
        import numpy as np

        found = []
        guides = self._guides(requests)
        for start in range(0, len(requests), _FETCHED):  # the vectors of all candidates may be more than the index
            part = requests[start : start + _FETCHED]
            passages = {one.contents: one.id for request in part for one in request.candidates}
            vectors = index.vectors_of(passages)
            if missing := [text for text in passages if text not in vectors]:  # the program's own
                vectors.update(zip(missing, self.encoder.encode_passages(missing), strict=True))
            for request, query in zip(part, guides[start : start + _FETCHED], strict=True):
                rows = [vectors[one.contents] for one in request.candidates]
                stacked = np.stack(rows) if rows else np.empty((0, len(query)), np.float32)
                found.append(similarities(stacked, query, self.encoder.name))
        return found


def agreement(scores: Sequence[Scores]) -> float:
    """The largest part of several scorings of the same passages that puts the same one first.

    Example:
        >>> import numpy as np
        >>> round(agreement([np.array([0.9, 0.1]), np.array([0.6, 0.5]), np.array([0.2, 0.3])]), 3)
        0.667
    """
    firsts = Counter(int(one.argmax()) for one in scores if len(one))
    return max(firsts.values()) / len(scores) if firsts else 1.0


class AnswerSimilarity(RationaleSimilarity):
    """Cosine of passage and ``question. answers``: no LM is asked. A strong baseline for any rationale."""

    name = "answer"
    reads_rationale = False


class AnswerContainment:
    """1 for a passage in which a normalised gold answer occurs as whole words, else 0: distant supervision, no model.

    Source: Karpukhin et al. 2020 (DPR), section 4.2. For yes, no and other short answers it says next to nothing.

    Example:
        >>> from radio_dspy.core.passages import Passage
        >>> request = RankRequest(
        ...     "q", "Why did it cool?", (Passage("a", "Ice floats."), Passage("b", "By evaporation, it cooled.")),
        ...     (0.4, 0.3), answers=("Evaporation",),
        ... )
        >>> AnswerContainment().score([request])[0].tolist()
        [0.0, 1.0]
    """

    name = "answer_containment"
    reads_rationale = False

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``Signal``."""
        import numpy as np

        return [
            np.array([contains_answer(passage, request.answers) for passage in request.candidates], dtype=np.float32)
            for request in requests
        ]


class Labels:
    """1 for a passage labelled as needed for the answer, else 0: the labelled upper bound, never the method."""

    name = "labels"
    reads_rationale = False

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``Signal``."""
        import numpy as np

        return [
            np.array([passage.id in request.relevant for passage in request.candidates], dtype=np.float32)
            for request in requests
        ]


def score_all(
    signals: Sequence[Signal], requests: Sequence[RankRequest], *, null_passage: bool = False
) -> Iterator[dict[str, list[float]]]:
    """Ask every signal and turn the answers around: for each question, each signal's scores by its name.

    With ``null_passage`` that of the null passage comes last; for a signal that knows nothing of it, it is the mean of
    the candidates', where it neither raises the null passage nor lowers it.
    """
    columns: dict[str, list[Any]] = {}
    asked = [with_null(one) for one in requests] if null_passage else requests
    for signal in signals:
        if null_passage and not reads_null(signal):
            columns[signal.name] = [_with_mean(scores) for scores in signal.score(requests)]
        else:
            columns[signal.name] = list(signal.score(asked))
    for position in range(len(requests)):
        yield {name: scores[position].tolist() for name, scores in columns.items()}


def _with_mean(scores: Scores) -> Scores:
    import numpy as np

    return np.append(scores, scores.mean() if len(scores) else np.float32(0)).astype(np.float32)


class RerankerScore:
    """The scores of another reranker: distils a large one, or a hosted one, into the small one that is trained.

    The reranker sees the question alone, neither answers nor rationale, so the student learns what it would do itself.
    One with ``rank_all`` (``Rerank``, ``RemoteRerank``) is asked about all questions at once. Any other is called for
    one question after the other and must return every passage: ``LMRerank`` works, and scores by 1 / rank; for an LM
    that also reads the answer, many at a time, there is ``LMRanking``.

    Args:
        reranker: A module that is called with ``query``, ``passages`` and ``k``, and returns ``scores`` and
            ``indices``; or that has ``rank_all(requests)``.

    Example:
        >>> from radio_dspy import Passage, Rerank
        >>> request = RankRequest(
        ...     "q", "why did the dough not rise?",
        ...     (Passage("a", "Ice floats."), Passage("b", "Yeast dies in hot water.")), (0.4, 0.3),
        ... )
        >>> scores = RerankerScore(Rerank("all-MiniLM-L6-v2", architecture="bi-encoder")).score([request])[0]
        >>> bool(scores[1] > scores[0])
        True
    """

    name = "reranker"
    reads_rationale = False

    def __init__(self, reranker: dspy.Module) -> None:
        self.reranker = reranker

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``Signal``.

        Raises:
            DataError: If the reranker leaves out a candidate.
        """
        if hasattr(self.reranker, "rank_all"):
            rankings = self.reranker.rank_all(requests)
        else:  # bulk work: it belongs neither into a program's trace nor into an LM's history
            with dspy.context(trace=None, disable_history=True):
                rankings = [self._call(request) for request in requests]
        return [_aligned(request, ranking) for request, ranking in zip(requests, rankings, strict=True)]

    def _call(self, request: RankRequest) -> Ranking:
        candidates = request.candidates
        ranked = self.reranker(query=request.query, passages=list(candidates), k=len(candidates) or None)
        return Ranking(request.query, tuple(candidates[i] for i in ranked.indices), tuple(ranked.scores))


def _aligned(request: RankRequest, ranking: Ranking) -> Scores:
    """The ranking's scores in the candidates' order."""
    import numpy as np

    found = dict(zip(ranking.ids, ranking.scores, strict=True))
    missing = next((one.id for one in request.candidates if one.id not in found), None)
    if missing is not None:
        raise DataError(f"Question {request.id!r}: the reranker gave no score for candidate {missing!r}.")
    return np.array([found[one.id] for one in request.candidates], dtype=np.float32)
