"""Base class of signals that ask an LM; scores are kept and never asked for twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.core.attributes import set_inside
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.files import check_file
from radio_dspy.core.passages import NULL_PASSAGE, Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.lm.calls import Refusals, ask_each, call_key
from radio_dspy.runs.records import SignalLine, reader_of
from radio_dspy.runs.run import Run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.float32]

Passages = tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """Passages that the LM is asked about together, and a hash of all that decides their scores."""

    request: RankRequest
    passages: Passages
    key: str


class LMSignal(ABC):
    """Base class of signals that ask an LM: bulk calls, failures, and scores kept on disk.

    A passage beyond ``depth``, and one for which the LM gives nothing to go by (a content filter, too long), gets the
    lowest score that was found for its question.

    Args:
        lm: Who is asked: any ``dspy.LM``.
        depth: How many of the first candidates the LM is asked about; None asks about all.
        num_threads: Calls in flight at the same time.
        show_progress: Show a progress bar.
        keep: A ``.jsonl`` file to which every score is added the moment it is there, and from which it is read when the
            same LM with the same settings is asked again; None keeps nothing, but for ``RADIO``, which has them kept
            in its run folder.
    """

    name: str
    reads_null = False  # whether it can say what the LM makes of no passage at all
    _needs_answers = True
    _kept_as = ""  # the signal whose kept scores these are, where it is another

    def __init__(
        self,
        lm: dspy.LM,
        *,
        depth: int | None = None,
        num_threads: int = 1,
        show_progress: bool = False,
        keep: str | PathLike[str] | None = None,
    ) -> None:
        if depth is not None and depth < 1:
            raise SettingsError(f"depth must be at least 1, or None for all candidates; got {depth}.")
        if num_threads < 1:
            raise SettingsError(f"num_threads must be at least 1, got {num_threads}.")
        self.lm = lm
        self.depth = depth
        self.num_threads = num_threads
        self._show_progress = show_progress
        self._keep = Path(keep) if keep is not None else None
        self._run: Run | None = None
        self._firsts: tuple[Mapping[str, Sequence[str]], ...] = ()
        if self._keep is not None and self._keep.suffix != ".jsonl":
            raise SettingsError(f"{self._keep}: scores are kept as JSON Lines; give a name that ends in .jsonl.")
        if self._keep is not None:
            check_file(self._keep, "give another file for keep=.")

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``Signal``.

        Raises:
            LanguageModelError: If the LM fails; scores that were kept before that stay.
            SettingsError: If the LM cannot do what the signal asks of it.
            DataError: If the signal needs an answer and a question has none.
        """
        for request in requests:
            if self._needs_answers and not asked_answers(request):
                raise DataError(
                    f"Question {request.id!r} has no answer to score passages by; give it one, or leave it out."
                )
        parts = [[self._part(one, chosen) for chosen in self._split(self._chosen(one))] for one in requests]
        found = self._kept({part.key: len(part.passages) for own in parts for part in own})
        missing = {part.key: part for own in parts for part in own if part.key not in found}
        if missing:
            self._ask_all(list(missing.values()), found)
        return [
            _filled(
                request,
                {one.id: score for part in own for one, score in zip(part.passages, found[part.key], strict=True)},
            )
            for request, own in zip(requests, parts, strict=True)
        ]

    def kept_in(self, run: Run | None) -> AbstractContextManager[None]:
        """Inside the block scores are kept in a run's ``signals.jsonl``, where there is one and no file was given."""
        return set_inside(self, "_run", self._run if run is None else run)

    def also_about(self, *firsts: Mapping[str, Sequence[str]]) -> AbstractContextManager[None]:
        """Inside the block the LM is asked about further passages, too: the first ``depth`` of other rankings.

        Args:
            firsts: Rankings of the same candidates: passage ids, best first, by question id.
        """
        return set_inside(self, "_firsts", firsts)

    def asking(self, lm: dspy.LM) -> AbstractContextManager[None]:
        """Inside the block another LM is asked in this one's place: one that is known by the same name and settings."""
        return set_inside(self, "lm", lm)

    def call_sizes(self, candidates: int, answers: int) -> list[int]:
        """The calls that a question takes: how many passages the LM reads in each."""
        return [1] * self._asked(candidates)

    def null_sizes(self, answers: int) -> list[int]:
        """As ``call_sizes``: the further calls where the null passage is a candidate."""
        return [0] if self.reads_null else []

    def _chosen(self, request: RankRequest) -> Passages:
        """The candidates that the LM is asked about: the first ones, and those of ``also_about``.

        The null passage is one of them, and does not count.
        """
        first = request.candidates[: self.depth]
        also = {key for ids in self._firsts for key in ids.get(request.id, ())[: self.depth]} | {NULL_PASSAGE.id}
        return first + tuple(one for one in request.candidates[len(first) :] if one.id in also)

    def _asked(self, candidates: int) -> int:
        return candidates if self.depth is None else min(candidates, self.depth)

    def _split(self, passages: Passages) -> list[Passages]:
        """Split candidates into parts that the LM is asked about together."""
        return [(passage,) for passage in passages]

    @abstractmethod
    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        """Scores of passages that are asked about together."""

    @abstractmethod
    def _settings(self, request: RankRequest) -> list[Any]:
        """Everything that decides a score beside the LM, the question, its answers and the passages."""

    def _part(self, request: RankRequest, passages: Passages) -> _Part:
        texts = [passage.contents for passage in passages]
        asked = [self._kept_as or self.name, self._settings(request), request.query, list(request.answers), texts]
        return _Part(request, passages, call_key(self.lm, self.lm.kwargs, asked))

    def _file(self) -> tuple[Run, str] | None:
        """The folder and the file name under which scores are kept."""
        if self._keep is not None:
            return Run(self._keep.parent), self._keep.stem
        return (self._run, "signals") if self._run is not None else None

    def _kept(self, wanted: Mapping[str, int]) -> dict[str, list[float | None]]:
        """The kept scores that are asked for, as many as there are passages: a file may hold many others."""
        if (file := self._file()) is None:
            return {}
        run, name = file
        try:
            run.check_end(name)
            lines = run.records(name, reader_of(SignalLine))
            return {one["key"]: one["scores"] for one in lines if len(one["scores"]) == wanted.get(one["key"])}
        except DataError as error:
            if self._keep is None:
                raise
            raise DataError(f"{error} If it holds other lines than scores, give another file for keep=.") from error

    def _append(self, part: _Part, scores: list[float | None]) -> None:
        if (file := self._file()) is None or None in scores:  # what was refused is asked again next time
            return
        run, name = file
        ids = [passage.id for passage in part.passages]
        run.append_record(
            name,
            {
                "signal": self._kept_as or self.name,
                "id": part.request.id,
                "passages": ids,
                "scores": scores,
                "key": part.key,
            },
        )

    def _ask_all(self, parts: Sequence[_Part], found: dict[str, list[float | None]]) -> None:
        """Ask about every part; each score is kept before the next question is put."""
        refusals = Refusals()

        def ask(part: _Part) -> list[float | None]:
            try:
                scores: list[float | None] = [*self._ask(part.request, part.passages)]
                refusals.answered()
            except (dspy.LMInvalidRequestError, DataError) as error:
                refusals.take(error)
                return [None] * len(part.passages)  # this passage; the others may well be read
            return scores

        def keep(part: _Part, scores: list[float | None]) -> None:
            self._append(part, scores)
            found[part.key] = scores

        file = self._file()
        kept = f"are kept in {file[0].path / file[1]}.jsonl" if file else "are lost: give keep='scores.jsonl'"
        ask_each(
            self.lm,
            parts,
            ask,
            keep,
            title=self.name,
            unit="call",
            kept=f"Scores found before {kept}.",
            num_threads=self.num_threads,
            show_progress=self._show_progress,
        )


def _filled(request: RankRequest, asked: Mapping[str, float | None]) -> Scores:
    """A score for every candidate, of those asked about by id: the lowest one found where the LM gave none."""
    import numpy as np

    lowest = min((score for score in asked.values() if score is not None), default=0.0)
    scores = [asked.get(one.id) for one in request.candidates]
    return np.array([lowest if score is None else score for score in scores], dtype=np.float32)


def asked_answers(request: RankRequest) -> list[str]:
    """The answers that an LM is asked about: those that say something."""
    return [answer.strip() for answer in request.answers if answer.strip()]
