"""Turn examples into ranking tasks: search once for every distinct question."""

from __future__ import annotations

import logging
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import dspy

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage, content_id
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.text import contains_answer, same_words, words
from radio_dspy.core.validation import checked_text, is_blank, plain_text, shown
from radio_dspy.datasets.examples import answer_texts, check_labels, grades_of, relevant_of
from radio_dspy.retrievers.base import Retriever
from radio_dspy.retrievers.vector import vector_part

logger = logging.getLogger(__name__)
_SEARCH_BATCH = 256
_LONGER, _SHORT = 2, 40  # a copy of a question is not more than twice as long, or as many characters
_NEARLY = 0.9  # of the words of both
_LABEL = re.compile(
    r"\W*(q|question|query|frage|pregunta|вопрос|[问問]题?|質問|질문)?\s*[0-9]{0,4}\s*[:.)\uff1a]", re.IGNORECASE
)


def rank_requests(
    examples: Sequence[dspy.Example], retriever: Retriever, candidates: int, *, tell: bool = True
) -> list[RankRequest]:
    """Retrieve the candidates of every question; the question itself, where it stands in the corpus, is none.

    Args:
        examples: Questions; ``id``, ``answers`` (or ``answer``) and ``relevant`` are taken along where they are there.
            A question without an id gets one made from its text.
        retriever: The first stage.
        candidates: How many passages to retrieve.
        tell: Log how many questions stand in the corpus.

    Raises:
        DataError: For an example without a question, and for an id that two different questions share.
    """
    questions = distinct_questions(examples)
    texts = {key: example.question for key, example in questions.items()}
    found = dict(zip(texts, _searched(retriever, list(texts.values()), candidates), strict=True))
    requests = {key: _request(key, questions[key], found[key]) for key in texts}
    copied = [key for key, one in requests.items() if one.copies]
    if copied:  # as many candidates as without the copies
        deeper = candidates + max(len(requests[key].copies) for key in copied)
        for key, ranking in zip(copied, _searched(retriever, [texts[key] for key in copied], deeper), strict=True):
            whole = _request(key, questions[key], ranking)
            requests[key] = replace(whole, candidates=whole.candidates[:candidates], scores=whole.scores[:candidates])
        if tell:
            logger.warning(
                "%d of %d questions stand in the corpus, the first is %r: they are left out of their candidates.",
                len(copied), len(requests), copied[0],
            )  # fmt: skip
    return list(requests.values())


def _searched(retriever: Retriever, texts: Sequence[str], candidates: int) -> list[Ranking]:
    parts = (texts[start : start + _SEARCH_BATCH] for start in range(0, len(texts), _SEARCH_BATCH))
    return [ranking for part in parts for ranking in retriever.search(part, candidates)]


def _request(key: str, example: dspy.Example, ranking: Ranking) -> RankRequest:
    request = RankRequest(
        id=key,
        query=ranking.query,
        candidates=ranking.passages,
        scores=array("d", ranking.scores),  # a tuple of so many floats takes four times as much
        answers=answer_texts(example),
        relevant=relevant_of(example),
        grades=grades_of(example),
    )
    return without_question(request, question_id(example), [example.question])


def without_question(
    request: RankRequest, key: str, texts: Sequence[str], *, keep_labelled: bool = True
) -> RankRequest:
    """The request without the candidates that are the question itself, as in ArguAna and Quora; ``copies`` names them.

    A passage is the question if its words are the question's, with or without its title or a label such as "Q:"
    before them, or nearly so under the question's own id.

    Args:
        request: What reached a reranker.
        key: The question's id.
        texts: The question's text, and others that count as such.
        keep_labelled: Keep a passage of another id that is labelled as relevant: labels judge duplicates, too.
    """
    copies = frozenset(
        passage.id
        for passage in request.candidates
        if not (keep_labelled and passage.id in request.relevant and passage.id != key)
        and any(_repeats(passage, text, request.answers if passage.id == key else None) for text in texts)
    )
    if not copies:
        return request
    kept = [position for position, passage in enumerate(request.candidates) if passage.id not in copies]
    return replace(
        request,
        candidates=tuple(request.candidates[position] for position in kept),
        scores=array("d", (request.scores[position] for position in kept)),
        relevant=request.relevant - copies,
        copies=request.copies | copies,
    )


def _repeats(passage: Passage, question: str, answers: Sequence[str] | None = None) -> bool:
    """Whether a passage is the question; with ``answers``, which share its id, also one that is nearly so."""
    size = len(question.strip())
    if not size / _LONGER - _SHORT <= len(passage.text.strip()) <= len(passage.title) + size * _LONGER + _SHORT:
        return False
    label = _LABEL.match(passage.text)
    texts = (passage.text, passage.contents, passage.text[label.end() :] if label else "")
    if any(same_words(text, question) for text in texts):
        return True
    if passage.title and same_words(passage.text, f"{passage.title} {question}"):
        return True
    if answers is None or any(
        contains_answer(passage, [one]) and not contains_answer(question, [one]) for one in answers
    ):
        return False
    asked, said = Counter(words(question)), Counter(words(passage.text))
    return 2 * (asked & said).total() >= _NEARLY * (asked.total() + said.total()) > 0


def distinct_questions(examples: Sequence[dspy.Example]) -> dict[str, dspy.Example]:
    """Each question once, by its id.

    Raises:
        DataError: For what is no example, one without a question, an id that two different questions share, and a
            text that cannot be written.
    """
    questions: dict[str, dspy.Example] = {}
    for position, example in enumerate(examples):
        if not isinstance(example, dspy.Example):
            raise DataError(
                f"Example {position} is a {type(example).__name__}; give dspy.Example objects, such as "
                "radio_dspy.load_questions makes of rows with 'question' and 'answers'."
            )
        text = example.get("question")
        if not isinstance(text, str) or is_blank(text):
            told = f" that is a text, got {shown(text)}" if "question" in example else ""
            raise DataError(
                f"Example {position} has no 'question'{told} (it has {sorted(example.keys())}); where the "
                "program takes it by another name, give example.copy(question=...)."
            )
        key = checked_text(question_id(example), f"Example {position}, id")
        checked_text(text, f"Question {key!r}")
        if key in questions and questions[key].question != text:
            raise DataError(f"Two questions share the id {key!r}: {questions[key].question!r:.60} and {text!r:.60}.")
        questions.setdefault(key, example)
    return questions


def question_id(example: dspy.Example) -> str:
    """A question's id; one without gets one made from its text.

    Raises:
        DataError: If it is a number that is none, such as NaN, or true or false.
    """
    text = str(example.get("question") or "")
    key = example.get("id")
    if key is None or key == "":
        return content_id(text, "q")
    return plain_text(key, f"Question {text!r:.60}, id") if isinstance(key, int | float) else str(key)


def known_labels(examples: Sequence[dspy.Example], first_stage: Retriever | None) -> list[dspy.Example]:
    """The questions without labels that name no passage of the first stage; see ``check_labels``.

    A store is asked for the labelled passages alone; a retriever that shows neither store nor ``passages`` is trusted.
    """
    store = vector_part(first_stage)
    if store is None:
        corpus = getattr(first_stage, "passages", None)
        return check_labels(examples, {one.id for one in corpus} if corpus else None)
    labels = sorted(set().union(*map(relevant_of, examples)))
    return check_labels(examples, {one.id for one in store.passages_by_id(labels)})


def usable(requests: Sequence[RankRequest]) -> tuple[list[RankRequest], dict[str, int]]:
    """The questions that can be learnt from, none of them among its own candidates, and how many cannot, by reason."""
    skipped: Counter[str] = Counter()
    kept = []
    for one in requests:
        request = without_question(one, one.id, [one.query], keep_labelled=False)
        if not request.answers:
            skipped["without an answer"] += 1
        elif len(request.candidates) < 2:
            skipped["with fewer than two candidates"] += 1
        else:
            kept.append(request)
    return kept, dict(skipped)
