"""A large reranker as a teacher: what it ranks first is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dspy

from radio_dspy.errors import DataError
from radio_dspy.passages import Ranking, RankRequest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.float32]


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
