"""What `radio-dspy evaluate` judges: questions, judgements, and candidates out of a run or a first stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from radio_dspy.core.errors import DataError, SettingsError

if TYPE_CHECKING:
    import dspy

    from radio_dspy.core.passages import Passage
    from radio_dspy.core.rankings import RankRequest
    from radio_dspy.retrievers.vector import VectorRetriever


@dataclass(frozen=True)
class Inputs:
    """The files that are judged by.

    Attributes:
        questions: With answers, labels, or texts alone; None takes the ids of ``qrels``.
        qrels: Judgements of the questions.
        run: A first stage's rankings in TREC's format.
        corpus: The passages.
        candidates: How many of each question's are reranked; None takes all of ``run``.
        limit: Use only so many questions.
    """

    questions: Path | None
    qrels: Path | None
    run: Path | None
    corpus: Path | None
    candidates: int | None
    limit: int | None

    def check(self, *, reranks: bool) -> None:
        """See that what is given is enough.

        Args:
            reranks: Whether texts are read, and not only ids.

        Raises:
            SettingsError: If something is missing.
        """
        if self.questions is None and (self.run is None or self.qrels is None or reranks):
            raise SettingsError(
                "--questions is missing: a reranker reads the questions. Without one, --run and --qrels are judged."
            )
        if self.run is None and not reranks:
            raise SettingsError("Give a program, --reranker, or --run: there is nothing to judge.")

    def examples(self) -> list[dspy.Example]:
        """The questions with their judgements.

        Raises:
            DataError: If there is nothing to judge by.
        """
        import dspy

        import radio_dspy as radio
        from radio_dspy.datasets.examples import check_judgeable

        if self.questions is not None:
            found = radio.load_questions(self.questions, qrels=self.qrels)
        else:
            grades = radio.load_qrels(Path(str(self.qrels)))
            found = [
                dspy.Example(id=key, question=key, relevant=[one for one in judged if judged[one] > 0], grades=judged)
                for key, judged in grades.items()
            ]
        found = found[: self.limit]
        check_judgeable(found, str(self.questions or self.qrels))
        return found

    def of_run(
        self, examples: Sequence[dspy.Example], first_stage: Callable[[], VectorRetriever], *, reranks: bool
    ) -> list[RankRequest]:
        """The candidates of each question as ``run`` has them.

        Args:
            examples: The questions.
            first_stage: Opens what holds the passages where there is no ``corpus``.
            reranks: Whether the passages' texts are read.

        Raises:
            DataError: If the run ranks none of the questions, or a passage that is nowhere.
        """
        import radio_dspy as radio

        run = radio.load_run(Path(str(self.run)))
        ranked = {one.id: list(run.get(one.id, {}).items())[: self.candidates] for one in examples}
        if not any(ranked.values()):
            raise DataError(f"{self.run}: ranks no question that is judged; its first one is {next(iter(run))!r:.80}.")
        ids = list(dict.fromkeys(key for found in ranked.values() for key, _ in found))
        texts = self._texts(ids, first_stage) if reranks else {key: radio.Passage(key, key) for key in ids}
        return [_request(one, ranked[one.id], texts) for one in examples]

    def _texts(self, ids: Sequence[str], first_stage: Callable[[], VectorRetriever]) -> Mapping[str, Passage]:
        import radio_dspy as radio

        passages = radio.load_corpus(self.corpus) if self.corpus else first_stage().passages_by_id(ids)
        texts = {one.id: one for one in passages}
        missing = [key for key in ids if key not in texts]
        if missing:
            raise DataError(
                f"{self.run}: {len(missing)} of its passages are not in the corpus, the first is {missing[0]!r:.80}."
            )
        return texts


def _request(example: dspy.Example, ranked: Sequence[tuple[str, float]], texts: Mapping[str, Passage]) -> RankRequest:
    from radio_dspy.core.rankings import RankRequest
    from radio_dspy.datasets.examples import answer_texts, grades_of, relevant_of

    return RankRequest(
        id=example.id,
        query=example.question,
        candidates=tuple(texts[key] for key, _ in ranked),
        scores=[score for _, score in ranked],
        answers=answer_texts(example),
        relevant=relevant_of(example),
        grades=grades_of(example),
    )
