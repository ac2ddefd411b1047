"""Make questions with answers from passages, for those who have documents and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import dspy

from radio_dspy.core.errors import BudgetError, DataError, LanguageModelError, SettingsError
from radio_dspy.core.passages import Passage, as_passages, checked_corpus, content_id
from radio_dspy.core.rankings import first_repeated
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.validation import is_whole
from radio_dspy.datasets.questions import as_questions, write_questions
from radio_dspy.lm.budget import Ledger
from radio_dspy.lm.limits import Budget
from radio_dspy.questions.filters import (
    KNOWN,
    NO_PARTNER,
    NOT_FOUND,
    ONE_ENOUGH,
    REASONS,
    REPEATED,
    UNREADABLE,
    Distinct,
    gives,
    wording_problem,
)
from radio_dspy.questions.planning import Side, Task, document_of, sides_of, styles_of, tasks, with_partners
from radio_dspy.questions.writing import Asking, Check
from radio_dspy.retrievers.base import Retriever
from radio_dspy.runs.run import Run

logger = logger_of(__name__)
ENCODER = "all-MiniLM-L6-v2"  # of the first stage, where none is given
_AT_ONCE = 8  # tasks at least, and two for each thread, between two looks at how many questions there are
_HOPELESS = 100  # tasks of which none gave a question


_Made = tuple[Task, str, str]  # with question and answer


@dataclass(frozen=True)
class MadeQuestions:
    """Questions made from passages, and what became of the others.

    Attributes:
        examples: As ``load_questions`` gives them. ``relevant`` are the passages that a question was made from;
            ``metadata`` has ``style``, ``documents``, ``split`` (``train`` or ``dev``) and ``lm``.
        counts: How many were asked for (``asked``), how many were left out for each reason, how many stay (``kept``).
        spending: LM calls, tokens and dollars by stage.
        run_dir: Where everything that the LM said is kept.
        stopped: Why it ended early; empty where it did not.
    """

    examples: list[dspy.Example]
    counts: dict[str, int]
    spending: dict[str, dict[str, Any]]
    run_dir: Path
    stopped: str = ""

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def train(self) -> list[dspy.Example]:
        """The questions to learn from."""
        return self._of("train")

    @property
    def dev(self) -> list[dspy.Example]:
        """The questions to judge by; no document has questions on both sides."""
        return self._of("dev")

    def _of(self, side: Side) -> list[dspy.Example]:
        return [one for one in self.examples if one.metadata["split"] == side]

    def save(self, train: str | PathLike[str], dev: str | PathLike[str] | None = None) -> None:
        """Write the questions as JSON Lines that ``load_questions`` reads.

        Args:
            train: File for ``train``; for all questions where ``dev`` is None.
            dev: File for ``dev``.
        """
        write_questions(self.examples if dev is None else self.train, train)
        if dev is not None:
            write_questions(self.dev, dev)

    def __str__(self) -> str:
        lost = "".join(
            f"\n  {count:5d} left out: {reason}" for reason, count in self.counts.items() if reason in REASONS
        )
        sides = f"{len(self.train)} to train on, {len(self.dev)} to judge by"
        early = f"\nEnded early: {self.stopped}" if self.stopped else ""
        return f"{len(self)} questions ({sides}) of {self.counts['asked']} asked for{lost}{early}"


def make_questions(
    passages: Iterable[Any],
    lm: dspy.LM | str | None = None,
    *,
    n: int | None = None,
    style: str | Sequence[str] | Mapping[str, str] | None = None,
    dev: float = 0.2,
    retriever: Retriever | None = None,
    k: int = 20,
    document: str | None = None,
    budget: Budget | None = None,
    run_dir: str | PathLike[str] | None = None,
    num_threads: int | None = None,
    seed: int = 42,
    show_progress: bool = True,
) -> MadeQuestions:
    """Have an LM write questions about passages, and keep those that are of use to align and judge a reranker.

    A question stays if its answer stands in the passage, the first stage finds the passage among the top ``k``, no
    earlier question is nearly the same, and the LM does not give the answer without the passage; one about two
    passages, if the LM does not give the answer from one of them alone. What an LM is not needed for is looked at
    first. A question costs one call to write and one to check, one about two passages up to three to check.

    Args:
        passages: ``Passage`` objects, texts, or documents of other libraries; see ``load_corpus``.
        lm: Who writes and answers: a ``dspy.LM`` or its LiteLLM name; None takes ``dspy.settings.lm``.
        n: How many questions are wanted; fewer come where passages, budget or the LM do not give more. None asks once
            for every passage.
        style: One or several of ``fact``, ``why``, ``case``, ``keywords``, ``multihop`` and ``comparison`` (the last
            two are about two passages), or kinds of your own: ``{"duty": "about a duty that somebody has"}``. None
            takes ``fact``, ``why`` and ``multihop`` in turn.
        dev: Part of the passages whose documents are kept for questions to judge by.
        retriever: The first stage that has to find the passages; None indexes them with all-MiniLM-L6-v2.
        k: Among how many passages it has to find them: as many as the reranker will see.
        document: Field of the passages' metadata that names the document that a passage was cut from. None looks for
            the usual ones (``source``, ``document_id``...), then takes the title, then the passage itself.
        budget: What the calls may cost. At the limit the questions made so far are returned.
        run_dir: Folder that keeps every reply the moment it is there: the same call goes on from it and pays for none
            twice. None takes a new one in the user's cache folder (``RADIO_DSPY_CACHE``).
        num_threads: LM calls in flight at the same time; None takes ``dspy.settings.num_threads``.
        seed: Decides the order of the passages and the split.
        show_progress: Show a progress bar.

    Raises:
        SettingsError: For a setting outside its range, or without an LM.
        DataError: For passages that cannot be used.
        LanguageModelError: If the LM fails, or the first hundred tasks give no question that is of use.
        BudgetError: If the limit is reached before there is a question.

    Example:
        >>> from dspy.utils import DummyLM
        >>> lm = DummyLM([{"question": "What kills yeast?", "answer": "heat"}, {"answer": "unknown"}])
        >>> made = make_questions(["Too much heat kills yeast."], lm, style="fact", dev=0, num_threads=1)
        >>> made.train[0].question, made.train[0].answers, made.counts
        ('What kills yeast?', ['heat'], {'asked': 1, 'kept': 1})
    """
    styles = styles_of(style)
    if not is_whole(k) or k < 1 or (n is not None and (not is_whole(n) or n < 1)):
        raise SettingsError(f"n and k must be whole numbers of at least 1 (n may be None), got {n!r} and {k!r}.")
    corpus = _distinct(passages)
    documents = {one.id: document_of(one, document) for one in corpus}
    sides = sides_of(documents, dev, seed)
    asked = _opened(lm)
    run, ledger = Run(run_dir), Ledger(budget)
    run.check("make_questions")
    if retriever is None:
        from radio_dspy.retrievers.faiss import FaissRetriever

        retriever = FaissRetriever.build(corpus, encoder=ENCODER)
    described = {
        "passages": content_id("\n".join(one.contents for one in corpus)), "count": len(corpus), "n": n, "k": k,
        "styles": [[one.name, one.kind] for one in styles], "dev": dev, "seed": seed, "lm": asked.model,
    }  # fmt: skip
    with run.exclusive("make_questions"):
        run.begin(described)
        threads = num_threads if num_threads is not None else dspy.settings.num_threads
        making = _Making(Asking(asked, run, threads), retriever, k, documents, sides, ledger)
        planned = tasks(corpus, styles, seed)
        stopped = making.make(islice(planned, len(corpus)) if n is None else planned, n, show_progress)
        spent = ledger.total
        run.log("stage", stage="questions", calls=spent.calls)
    counts = {"asked": making.asked, **{one: making.left_out[one] for one in REASONS if making.left_out[one]}}
    counts["kept"] = len(making.rows)
    return MadeQuestions(as_questions(making.rows), counts, ledger.as_dict(), run.path, stopped)


def _distinct(passages: Iterable[Any]) -> list[Passage]:
    """The passages, each text once: no first stage could tell copies apart."""
    corpus = checked_corpus(as_passages(passages if hasattr(passages, "__getitem__") else list(passages)))
    if not corpus:
        raise SettingsError("There are no passages; give at least one.")
    found = list({one.contents: one for one in reversed(corpus)}.values())[::-1]
    if len({one.id for one in found}) < len(found):
        raise DataError(f"Two passages share the id {first_repeated([one.id for one in found])!r}; give each its own.")
    return found


def _opened(lm: dspy.LM | str | None) -> dspy.LM:
    found = dspy.LM(lm) if isinstance(lm, str) else lm if lm is not None else dspy.settings.lm
    if found is None:
        raise SettingsError("Nobody writes the questions: give an LM, or dspy.configure(lm=...).")
    return found


@dataclass
class _Making:
    """One call of ``make_questions``."""

    asking: Asking
    retriever: Retriever
    k: int
    documents: Mapping[str, str]
    sides: Mapping[str, Side]
    ledger: Ledger
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    _seen: Distinct = field(default_factory=Distinct)

    def make(self, planned: Iterator[Task], n: int | None, show_progress: bool) -> str:
        """Ask until there are ``n`` questions or nothing is left to ask; return why it ended early, if it did."""
        from tqdm.auto import tqdm

        at_once = max(_AT_ONCE, 2 * self.asking.num_threads)
        with tqdm(total=n, desc="questions", unit="question", disable=None if show_progress else True) as bar:
            while n is None or len(self.rows) < n:
                wanted = at_once if n is None else min(at_once, n - len(self.rows))
                batch = list(islice(planned, wanted))
                if not batch:
                    return "" if n is None else f"the passages give no more than {len(self.rows)} questions."
                before = len(self.rows)
                try:
                    self._make(batch)
                except BudgetError as error:
                    if not self.rows:
                        raise
                    logger.warning("%s %d questions are made so far.", error, len(self.rows))
                    return str(error)
                bar.update(len(self.rows) - before)
                if not self.rows and self.asked >= _HOPELESS:
                    raise LanguageModelError(
                        f"{self.asking.lm.model} gave no question that is of use for the first {self.asked} tasks "
                        f"({dict(self.left_out)}). Try a larger LM, another style, or a larger k."
                    )
        return ""

    def _make(self, batch: Sequence[Task]) -> None:
        """Write a batch of questions and keep those that are of use."""
        whole = with_partners(batch, self.retriever, self.sides, self.documents)
        ready = [one for one in whole if one is not None]
        with self.ledger.stage("questions"):
            written = self.asking.write(ready)
        dropped: Counter[str] = Counter({NO_PARTNER: len(whole) - len(ready)})
        found = self._found([question for question, _ in written])
        kept: list[_Made] = []
        for task, (question, answer), texts in zip(ready, written, found, strict=True):
            problem = UNREADABLE if not question else wording_problem(question, answer, task.passages)
            if not problem and any(one.contents not in texts for one in task.passages):
                problem = NOT_FOUND
            if not problem and not self._seen.add(question):
                problem = REPEATED
            if problem:
                dropped[problem] += 1
            else:
                kept.append((task, question, answer))
        kept = self._unknown(kept, dropped, KNOWN, lambda task: [()])
        kept = self._unknown(kept, dropped, ONE_ENOUGH, _each_alone)
        self.rows += [self._row(*one) for one in kept]
        self.asked += len(batch)
        self.left_out += dropped

    def _found(self, questions: Sequence[str]) -> list[frozenset[str]]:
        """The texts that the first stage finds for each question; none for an empty one."""
        rankings = iter(self.retriever.search([one for one in questions if one], self.k) if any(questions) else ())
        return [
            frozenset(one.contents for one in next(rankings).passages) if asked else frozenset() for asked in questions
        ]

    def _unknown(
        self, made: Sequence[_Made], dropped: Counter[str], reason: str, read: Callable[[Task], list[tuple[str, ...]]]
    ) -> list[_Made]:
        """Those whose answer the LM does not give from the passages alone that ``read`` names, one call each."""
        checks: list[Check] = [(question, texts) for task, question, _ in made for texts in read(task)]
        with self.ledger.stage("checks"):
            replies = iter(self.asking.check(checks) if checks else ())
        kept = []
        for one in made:
            said = [gives(next(replies), one[2]) for _ in read(one[0])]  # all of them, as they were asked
            if any(said):
                dropped[reason] += 1
            else:
                kept.append(one)
        return kept

    def _row(self, task: Task, question: str, answer: str) -> dict[str, Any]:
        ids = [one.id for one in task.passages]
        return {
            "id": content_id(question, "q"),
            "question": question,
            "golden_answers": [answer],
            "metadata": {
                "supporting_ids": ids,
                "documents": list(dict.fromkeys(self.documents[one] for one in ids)),
                "style": task.style.name,
                "split": self.sides[ids[0]],
                "lm": self.asking.lm.model,
            },
        }


def _each_alone(task: Task) -> list[tuple[str, ...]]:
    """Each passage of a pair by itself; nothing of a question about one passage."""
    return [(one.contents,) for one in task.passages] if task.style.pair else []
