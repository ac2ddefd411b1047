"""Signals from an LM: which passages let it give the right answer, and which it ranks first."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from radio_dspy.adapters import PlainAdapter
from radio_dspy.distillation.bulk import Refusals, ask_each
from radio_dspy.distillation.extractor import call_key
from radio_dspy.errors import DataError, SettingsError
from radio_dspy.lms import continuation_logprobs
from radio_dspy.metrics import AnswerMetric, token_f1
from radio_dspy.passages import Passage, RankRequest
from radio_dspy.rerankers.lm import LMRerank, windows_of
from radio_dspy.runs import Run
from radio_dspy.signatures import GenerateAnswer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.float32]

Passages = tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """What the LM is asked about at one time, and the hash of all that decides the scores."""

    request: RankRequest
    passages: Passages
    key: str


class LMSignal(ABC):
    """What the signals of this file share: bulk calls, failures, and scores that are kept on disk.

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
    _needs_answers = True

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
        if self._keep is not None and self._keep.suffix != ".jsonl":
            raise SettingsError(f"{self._keep}: scores are kept as JSON Lines; give a name that ends in .jsonl.")

    def score(self, requests: Sequence[RankRequest]) -> list[Scores]:
        """See ``Signal``.

        Raises:
            LanguageModelError: If the LM fails; scores that were kept before that stay.
            SettingsError: If the LM cannot do what the signal asks of it.
            DataError: If the signal needs an answer and a question has none.
        """
        for request in requests:
            if self._needs_answers and not _answers(request):
                raise DataError(
                    f"Question {request.id!r} has no answer to score passages by; give it one, or leave it out."
                )
        parts = [[self._part(one, chosen) for chosen in self._split(one.candidates[: self.depth])] for one in requests]
        found = self._kept({part.key for own in parts for part in own})
        missing = {part.key: part for own in parts for part in own if part.key not in found}
        if missing:
            self._ask_all(list(missing.values()), found)
        return [_filled(one, [found[part.key] for part in own]) for one, own in zip(requests, parts, strict=True)]

    @contextlib.contextmanager
    def kept_in(self, run: Run) -> Iterator[None]:
        """Inside the block scores are kept in a run's ``signals.jsonl``, where no file was given."""
        before, self._run = self._run, run
        try:
            yield
        finally:
            self._run = before

    def call_sizes(self, candidates: int, answers: int) -> list[int]:
        """The calls that a question takes: how many passages the LM reads in each."""
        return [1] * self._asked(candidates)

    def _asked(self, candidates: int) -> int:
        return candidates if self.depth is None else min(candidates, self.depth)

    def _split(self, passages: Passages) -> list[Passages]:
        """What the LM is asked about together."""
        return [(passage,) for passage in passages]

    @abstractmethod
    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        """Scores of passages that are asked about together."""

    @abstractmethod
    def _settings(self, request: RankRequest) -> list[Any]:
        """What decides a score beside the LM, the question, its answers and the passages."""

    def _part(self, request: RankRequest, passages: Passages) -> _Part:
        texts = [passage.contents for passage in passages]
        asked = [self.name, self._settings(request), request.query, list(request.answers), texts]
        return _Part(request, passages, call_key(self.lm, self.lm.kwargs, asked))

    def _file(self) -> tuple[Run, str] | None:
        """Where scores are kept: a folder, and the name of a file in it."""
        if self._keep is not None:
            return Run(self._keep.parent), self._keep.stem
        return (self._run, "signals") if self._run is not None else None

    def _kept(self, wanted: Container[str]) -> dict[str, list[float | None]]:
        """The kept scores that are asked for: a file may hold many others."""
        if (file := self._file()) is None:
            return {}
        run, name = file
        return {str(one["key"]): list(one["scores"]) for one in run.records(name) if one["key"] in wanted}

    def _append(self, part: _Part, scores: list[float | None]) -> None:
        if (file := self._file()) is None or None in scores:  # what was refused is asked again next time
            return
        run, name = file
        ids = [passage.id for passage in part.passages]
        run.append_record(
            name, {"signal": self.name, "id": part.request.id, "passages": ids, "scores": scores, "key": part.key}
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


class AnswerLikelihood(LMSignal):
    """The mean log-probability per token of the gold answer, given question and passage; of several answers the best.

    ``max_a 1/|a| sum_t log p(a_t | passage, question, a_<t)``: how much a passage helps this LM to the answer. Source:
    REPLUG (Shi et al. 2023, section 4.2) and GainRAG (Jiang et al. 2025). The prompt is the one that ``PlainAdapter``
    writes for ``GenerateAnswer``; for what counts as the answer's tokens, and which LMs can do it, see
    ``radio_dspy.lms.continuation_logprobs``. An LM call for each passage and answer; arguments as for ``LMSignal``.

    Example:
        >>> from radio_dspy import local_lm
        >>> request = RankRequest(
        ...     "q", "Why did the jug stay cold?",
        ...     (Passage("a", "Ice floats on water."), Passage("b", "Evaporation from the clay keeps a jug cold.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> with local_lm() as lm:
        ...     scores = AnswerLikelihood(lm).score([request])[0]
        >>> bool(scores[1] > scores[0])
        True
    """

    name = "answer_likelihood"

    def call_sizes(self, candidates: int, answers: int) -> list[int]:
        """See ``LMSignal``: a call for each passage and answer."""
        return [1] * (self._asked(candidates) * answers)

    def _settings(self, request: RankRequest) -> list[Any]:
        return [GenerateAnswer.instructions]

    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        answers = _answers(request)
        return [max(_mean_logprobs(self.lm, request.query, passage, answers)) for passage in passages]


class AnswerCorrectness(LMSignal):
    """Whether the LM, given this passage alone, answers rightly: token F1 with the gold answers, in [0, 1].

    Source: GainRAG (Jiang et al. 2025) and RRPO, which reward passages by the generator's own answer. A reply that
    cannot be read scores 0. An LM call for each passage; other arguments as for ``LMSignal``.

    Args:
        metric: Compares the LM's answer with the gold ones; None is ``radio_dspy.metrics.token_f1``.
        answer: Who answers, from ``question`` and ``passages``: give a program's own ``answer``, whose prompt was
            optimized, to reward the passages that this prompt makes use of. None is a plain ``GenerateAnswer``.

    Example:
        >>> from dspy.utils import DummyLM
        >>> request = RankRequest(
        ...     "q", "Why did it cool?", (Passage("a", "Ice floats."), Passage("b", "Vapour takes heat along.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> lm = DummyLM({"Ice": {"answer": "because of ice"}, "Vapour": {"answer": "evaporation"}})
        >>> AnswerCorrectness(lm).score([request])[0].tolist()
        [0.0, 1.0]
    """

    name = "answer_correctness"

    def __init__(
        self,
        lm: dspy.LM,
        *,
        depth: int | None = None,
        metric: AnswerMetric | None = None,
        answer: dspy.Module | None = None,
        num_threads: int = 1,
        show_progress: bool = False,
        keep: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(lm, depth=depth, num_threads=num_threads, show_progress=show_progress, keep=keep)
        self.metric = metric or token_f1
        self.answer = answer or dspy.Predict(GenerateAnswer)

    def _settings(self, request: RankRequest) -> list[Any]:
        name = getattr(self.metric, "__qualname__", type(self.metric).__qualname__)
        return [_prompts_of(self.answer), f"{self.metric.__module__}.{name}"]

    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        answers = _answers(request)
        scores = []
        for passage in passages:
            try:
                written = self.answer(question=request.query, passages=[passage.contents]).answer
            except AdapterParseError:
                written = ""
            scores.append(float(self.metric(str(written or ""), answers)) if written else 0.0)
        return scores


class LMRanking(LMSignal):
    """The LM's own order of the candidates, with the answer and the rationale before its eyes: ``n - rank``, best n.

    Source: RankGPT (Sun et al. 2023, section 4), which distils an LM's permutations into a small reranker. One question
    is asked about as a whole. Other arguments as for ``LMSignal``.

    Args:
        reranker: Asks for the order.
        lm: Who is asked.

    Example:
        >>> from dspy.utils import DummyLM
        >>> request = RankRequest(
        ...     "q", "Why did it cool?", (Passage("a", "Ice floats."), Passage("b", "Vapour takes heat along.")),
        ...     (0.4, 0.3), answers=("evaporation",),
        ... )
        >>> LMRanking(LMRerank(), DummyLM([{"order": "[1, 0]"}])).score([request])[0].tolist()
        [1.0, 2.0]
    """

    name = "lm_ranking"
    _needs_answers = False

    def __init__(
        self,
        reranker: LMRerank,
        lm: dspy.LM,
        *,
        depth: int | None = None,
        num_threads: int = 1,
        show_progress: bool = False,
        keep: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(lm, depth=depth, num_threads=num_threads, show_progress=show_progress, keep=keep)
        self.reranker = reranker

    def call_sizes(self, candidates: int, answers: int) -> list[int]:
        """See ``LMSignal``: a call for each window."""
        return [
            end - start for start, end in windows_of(self._asked(candidates), self.reranker.window, self.reranker.step)
        ]

    def _split(self, passages: Passages) -> list[Passages]:
        return [passages] if passages else []

    def _settings(self, request: RankRequest) -> list[Any]:
        asked = _prompts_of(self.reranker)
        return [self.reranker.window, self.reranker.step, self.reranker.max_words, asked, request.rationale]

    def _ask(self, request: RankRequest, passages: Passages) -> list[float]:
        ranked = self.reranker(
            request.query, passages, k=len(passages), answers=request.answers, rationale=request.rationale
        )
        if ranked.unreadable and ranked.unreadable == ranked.windows:
            raise DataError(
                f"{self.lm.model} gave no order that can be read for question {request.id!r}; take a larger LM, "
                "a smaller window, or max_words."
            )
        scores = [0.0] * len(passages)
        for rank, position in enumerate(ranked.indices):
            scores[position] = float(len(passages) - rank)
        return scores


def _prompts_of(module: dspy.Module) -> list[Any]:
    """What a module's predictors ask: instructions and demonstrations."""
    return [[one.signature.instructions, [dict(demo) for demo in one.demos]] for one in module.predictors()]


def _answers(request: RankRequest) -> list[str]:
    return [answer.strip() for answer in request.answers if answer.strip()]


def _mean_logprobs(lm: dspy.LM, question: str, passage: Passage, answers: Sequence[str]) -> list[float]:
    """The mean log-probability of each answer that can be scored."""
    fields = {"question": question, "passages": [passage.contents]}
    prompt = PlainAdapter().format(GenerateAnswer, [], fields)[0]["content"]
    means: list[float] = []
    for number, answer in enumerate(answers, start=1):
        try:
            values = continuation_logprobs(lm, prompt, answer)
        except DataError:  # a script that this LM's vocabulary does not cover: another answer may do
            if number == len(answers) and not means:
                raise
            continue
        means.append(sum(values) / len(values))
    return means


def _filled(request: RankRequest, asked: Sequence[Sequence[float | None]]) -> Scores:
    """A score for every candidate: the lowest one found where the LM gave none."""
    import numpy as np

    scores = [score for part in asked for score in part]
    scores += [None] * (len(request.candidates) - len(scores))
    lowest = min((score for score in scores if score is not None), default=0.0)
    return np.array([lowest if score is None else score for score in scores], dtype=np.float32)
