"""Compare two rankings of the same candidates, question by question."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import dspy

from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.html import html_table, paragraph, shortened, writable
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.redaction import presentable
from radio_dspy.evaluation.effects import MOVED, Effect, count_effects, most_changed
from radio_dspy.evaluation.measures import measure_of, shown_measure
from radio_dspy.evaluation.metrics import mean_metrics
from radio_dspy.evaluation.relevance import METRICS, Judgement, compare_each, judge
from radio_dspy.evaluation.significance import PairedDifference, interval, paired_bootstrap
from radio_dspy.reporting.report import ROW_TITLES, metrics_table
from radio_dspy.reporting.writing import write_evaluation
from radio_dspy.rerankers.rerank import NoRerank
from radio_dspy.retrievers.base import Retriever, retriever_of
from radio_dspy.retrievers.requests import rank_requests
from radio_dspy.runs.identity import retriever_identity

_CANDIDATES = 20  # where a program does not say how many it reranks
_SHOWN_PASSAGES = 5
_SHOWN_CHARACTERS = 600  # of a passage, in a file and a page that hold thousands
_SHOWN_ID = 120  # an id may be the text itself
_SHOWN_FIELDS = 12  # of a passage's metadata
_SHOWN_QUESTIONS = 5  # in a notebook


@dataclass(frozen=True)
class Comparison:
    """Rankings of the same questions before and after; in a notebook it is a table.

    Attributes:
        requests: The questions with their candidates.
        rows: Rankings by name, each aligned with ``requests``.
        before: The row to start from.
        after: The row that is held against it.
        metrics: What is measured, by names as for ``ranking_metrics``: any of ir-measures'. The first decides which
            questions count as helped.
    """

    requests: Sequence[RankRequest]
    rows: Mapping[str, Sequence[Ranking]]
    before: str = "base"
    after: str = "aligned"
    metrics: Sequence[str] = METRICS

    def __post_init__(self) -> None:
        if missing := [name for name in (self.before, self.after) if name not in self.rows]:
            raise DataError(f"There is no row {missing[0]!r} to compare; the rows are {', '.join(self.rows)}.")
        for name, rankings in self.rows.items():
            if len(rankings) != len(self.requests):
                raise DataError(f"Row {name!r} has {len(rankings)} rankings for {len(self.requests)} questions.")
        if not self.metrics:
            raise SettingsError("metrics is empty; give at least one, such as 'ndcg@10'.")
        for name in self.metrics:
            measure_of(name)

    def __len__(self) -> int:
        return len(self.requests)

    @functools.cached_property
    def judgement(self) -> Judgement:
        """The questions that can be judged, and their relevant passages."""
        return judge(self.requests)

    @functools.cached_property
    def values(self) -> dict[str, dict[str, list[float]]]:
        """Row -> metric -> one value for every question that can be judged."""
        return compare_each(self.rows, self.requests, self.metrics, judgement=self.judgement)

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Row -> metric -> mean over the questions that can be judged; 0 where there are none."""
        return {row: mean_metrics(values) for row, values in self.values.items()}

    def mean(self, row: str, metric: str | None = None) -> tuple[float, float, float]:
        """A row's mean with its 95 % interval: ``(mean, low, high)``.

        Raises:
            DataError: If no question can be judged.
        """
        return interval(self.values[row][metric or self.metrics[0]])

    def gain(self, metric: str | None = None) -> PairedDifference:
        """After minus before, by the paired bootstrap over the questions.

        Raises:
            DataError: If no question can be judged.
        """
        metric = metric or self.metrics[0]
        return paired_bootstrap(self.values[self.before][metric], self.values[self.after][metric])

    def changes(self, metric: str | None = None) -> dict[str, float]:
        """After minus before for every question that can be judged, by its id."""
        metric = metric or self.metrics[0]
        pairs = zip(self.values[self.before][metric], self.values[self.after][metric], strict=True)
        return {one.id: after - before for one, (before, after) in zip(self._judged, pairs, strict=True)}

    def counts(self, metric: str | None = None) -> dict[str, int]:
        """How many questions were ``helped``, ``hurt`` and left ``unchanged``."""
        return count_effects(self.changes(metric).values())

    def records(self, passages: int = _SHOWN_PASSAGES) -> Iterator[dict[str, Any]]:
        """One record a question, in JSON types: what ``comparison.jsonl`` holds.

        Args:
            passages: How many of the first passages before and after go in.
        """
        number = -1
        for position, (one, relevant) in enumerate(zip(self.requests, self.judgement.relevant, strict=True)):
            number += relevant is not None
            rankings = {name: self.rows[name][position].top(passages) for name in (self.before, self.after)}
            texts = {passage.id: passage for ranking in rankings.values() for passage in ranking.passages}
            place = {key: index for index, key in enumerate(texts)}
            yield {
                "id": writable(one.id),
                "question": writable(one.query),
                "answers": [writable(answer) for answer in one.answers],
                "metrics": {
                    name: {metric: values[number] for metric, values in metrics.items()}
                    for name, metrics in (self.values.items() if relevant is not None else ())
                },
                "relevant": [index for key, index in place.items() if relevant and key in relevant],
                "passages": [
                    {
                        "id": writable(shortened(key, _SHOWN_ID)),
                        "title": writable(found.title),
                        "text": writable(shortened(found.text, _SHOWN_CHARACTERS)),
                        **({"metadata": _shown_metadata(found.metadata)} if found.metadata else {}),
                    }
                    for key, found in texts.items()
                ],
                "rankings": {
                    name: [[place[key], float(score)] for key, score in zip(ranking.ids, ranking.scores, strict=True)]
                    for name, ranking in rankings.items()
                },
            }

    def save(self, folder: str | PathLike[str], answers: Mapping[str, Mapping[str, float]] | None = None) -> Path:
        """Write ``report.html``, ``report.md`` and what they are made of into a new or an earlier report's folder.

        Args:
            folder: A new folder, or that of an earlier report.
            answers: Row -> answer metric -> mean, where an LM answered as well.

        Returns:
            The page.

        Raises:
            SettingsError: If the folder holds a compile run.
        """
        return write_evaluation(folder, self.records(), self.outcome(), answers)

    def outcome(self) -> dict[str, Any]:
        """The outcome as JSON types: ``decision``, ``before``, ``after``, ``judged``, ``relevance``, ``metrics``."""
        return {
            "decision": self.sentence,
            "before": self.before,
            "after": self.after,
            "judged": self.judgement.judged,
            "relevance": self.judgement.source,
            "metrics": self.means,
        }

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        before, after = (ROW_TITLES.get(name, name) for name in (self.before, self.after))
        after = after[:1].upper() + after[1:]
        if not self.judgement.judged:
            return f"{after} against {before}: nothing could be judged; give questions with labels or answers."
        gain, counts, means, main = self.gain(), self.counts(), self.means, self.metrics[0]
        return (
            f"{after} against {before}: {shown_measure(main)} {means[self.before][main]:.3f} -> "
            f"{means[self.after][main]:.3f} "
            f"({gain.mean:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}) on {self.judgement.judged} "
            f"questions: {counts['helped']} helped, {counts['hurt']} hurt, {counts['unchanged']} unchanged."
        )

    def __str__(self) -> str:
        if not self.judgement.judged:
            return presentable(self.sentence)
        table = metrics_table(self.means, f"{self.judgement.judged} questions").rstrip()
        return f"{table}\n{presentable(self.sentence)}"

    def _repr_html_(self) -> str:
        if not self.judgement.judged:
            return paragraph(self.sentence)
        rows = [[ROW_TITLES.get(row, row), *(_told(*self.mean(row, one)) for one in self.metrics)] for row in self.rows]
        gains = [self.gain(one) for one in self.metrics]
        rows.append(["gain", *(f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in gains)])
        return (
            paragraph(self.sentence)
            + html_table("Means with 95 % intervals", ["ranking", *self.metrics], rows)
            + "".join(map(self._most_changed, MOVED))
        )

    def _most_changed(self, effect: Effect) -> str:
        queries = {one.id: one.query for one in self.requests}
        changes = self.changes()
        most = most_changed(changes, effect)[:_SHOWN_QUESTIONS]
        rows = [[f"{changes[key]:+.3f}", key, shortened(queries[key], 200)] for key in most]
        return (
            html_table(f"Most {effect}, {shown_measure(self.metrics[0])}", ["change", "id", "question"], rows)
            if rows
            else ""
        )

    @property
    def _judged(self) -> list[RankRequest]:
        return [one for one, ids in zip(self.requests, self.judgement.relevant, strict=True) if ids is not None]


def compare_programs(
    before: dspy.Module,
    after: dspy.Module,
    questions: Sequence[dspy.Example],
    *,
    retriever: Retriever | None = None,
    candidates: int | None = None,
    metrics: Sequence[str] = METRICS,
) -> Comparison:
    """Rank the same candidates with the rerankers of two programs; no LM is asked.

    Of a program with several rerankers the first is taken, on the question itself.

    Args:
        before: A program with a ``Rerank``, or a reranker.
        after: Another, such as what ``RADIO.compile`` made of it.
        questions: With ``relevant`` passages or ``answers`` to judge by.
        retriever: Finds the candidates; None takes the program's own, which must be the same in both.
        candidates: How many; None takes what ``before`` reranks.
        metrics: What is measured; see ``Comparison``.

    Raises:
        SettingsError: If a program has no reranker that ranks without an LM, or the first stages differ.

    Example:
        >>> from radio_dspy import FaissRetriever, NoRerank, Rerank, datasets
        >>> data = datasets.demo()
        >>> kitchen = lambda rows: [one for one in rows if one.id.startswith("kit")]  # one topic, to be quick
        >>> retriever = FaissRetriever.build(kitchen(data.passages), encoder="all-MiniLM-L6-v2")
        >>> found = compare_programs(
        ...     NoRerank(), Rerank("all-MiniLM-L6-v2", "bi-encoder"), kitchen(data.test), retriever=retriever
        ... )
        >>> len(found), found.counts()["unchanged"]  # the same model twice
        (10, 10)
    """
    requests = rank_requests(questions, retriever or _shared_retriever(before, after), candidates or _count(before))
    rows = {"before": _ranked(before, requests), "after": _ranked(after, requests)}
    return Comparison(requests, rows, "before", "after", metrics)


def _ranked(program: dspy.Module, requests: Sequence[RankRequest]) -> list[Ranking]:
    for module in (program, *(one for _, one in program.named_sub_modules())):
        if isinstance(module, NoRerank):
            return [one.ranking() for one in requests]
        if rank_all := getattr(module, "rank_all", None):
            return list(rank_all(requests))
    raise SettingsError(
        f"{type(program).__name__} holds no reranker that ranks without an LM: give a program with a Rerank, a "
        "RemoteRerank or a NoRerank, or one of these."
    )


def _shared_retriever(before: dspy.Module, after: dspy.Module) -> Retriever:
    first, second = retriever_of(before), retriever_of(after)
    if first is None or second is None:
        raise SettingsError("A reranker alone, or a program without a Retriever, finds nothing: give retriever=.")
    if first is not second and retriever_identity(first) != retriever_identity(second):
        raise SettingsError(
            "The programs' first stages differ, so their rerankers see other passages: give retriever=."
        )
    return first


def _count(program: dspy.Module) -> int:
    return int(getattr(program, "candidates", _CANDIDATES))


def _shown_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The first fields of a passage's metadata, each as a short text."""
    return {
        writable(shortened(name, _SHOWN_ID)): writable(
            shortened(one if isinstance(one, str) else json.dumps(one), _SHOWN_ID)
        )
        for name, one in islice(metadata.items(), _SHOWN_FIELDS)
    }


def _told(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"
