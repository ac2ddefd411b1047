"""Read and check the answers, letters and labels of an example."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import dspy

from radio_dspy.core.errors import DataError
from radio_dspy.core.redaction import logger_of
from radio_dspy.core.validation import is_plain_number, shown
from radio_dspy.datasets.options import option_letters
from radio_dspy.datasets.reading import read_jsonl as read_jsonl
from radio_dspy.datasets.shapes import (
    QUESTIONS,
    first_of,
    golds,
    lettered,
    options_of,
    strings,
)

logger = logger_of(__name__)
_RESPONSES = ("response", "output")  # of examples alone: in files they are what a model said


def answers_of(example: dspy.Example) -> tuple[str, ...]:
    """The gold answers of an example, whichever of ``answers``, ``golden_answers`` or ``answer`` holds them.

    Where none does, ``response`` or ``output`` is the answer, as in DSPy's tutorials.

    Raises:
        DataError: If they are no texts; the message names the question.

    Example:
        >>> answers_of(dspy.Example(question="Does ice float?", response="Yes, on water."))
        ('Yes, on water.',)
    """
    return tuple(str(one) for one in _golds(example))


def _golds(example: dspy.Example) -> list[Any]:
    names = [name for name in _RESPONSES if name in example]
    rows = [example, *({"answers": example[name]} for name in names)]
    return next((found for row in rows if (found := golds(_named(example), row))), [])


def with_questions(examples: Iterable[dspy.Example]) -> list[dspy.Example]:
    """Copies with ``question`` of the examples that have none: what is called so elsewhere, else their only text input.

    Example:
        >>> with_questions([dspy.Example(claim="Ice floats.", answer="yes").with_inputs("claim")])[0].question
        'Ice floats.'
    """
    return [
        one.copy(question=text) if isinstance(one, dspy.Example) and (text := _only_question(one)) else one
        for one in examples
    ]


def _only_question(example: dspy.Example) -> str | None:
    if "question" in example:
        return None
    taken = example.inputs() if example._input_keys else example
    found = [value for value in taken.values() if isinstance(value, str)]
    name = first_of(taken, QUESTIONS)
    value = example[name] if name else found[0] if example._input_keys and len(found) == 1 else None
    return value if isinstance(value, str) else None


def with_answers(examples: Iterable[dspy.Example], field: str) -> list[dspy.Example]:
    """Copies of the examples whose ``answers`` are what they hold as ``field``.

    Raises:
        DataError: If no example has the field, or what it holds is no text.

    Example:
        >>> with_answers([dspy.Example(question="Does ice float?", gold="yes")], "gold")[0].answers
        ['yes']
    """
    found = list(examples)
    if found and not any(field in one for one in found if isinstance(one, dspy.Example)):
        raise DataError(f"answer_field: no example has {field!r}; the first has {sorted(found[0].keys())}.")
    return [
        one.copy(answers=[str(gold) for gold in golds(_named(one), {"answers": one.get(field)})])
        if isinstance(one, dspy.Example)
        else one
        for one in found
    ]


def letters_of(example: dspy.Example) -> tuple[str, ...]:
    """The letters that are right answers to a multiple-choice question; see ``option_letters``.

    Raises:
        DataError: If there are gold answers and none of them names an option; the message names the question.

    Example:
        >>> letters_of(dspy.Example(question="What kills yeast?", choices=["cold", "heat"], answers=["heat"]))
        ('B',)
    """
    choices, labels = options_of(_named(example), example)
    gold = _golds(example)
    return option_letters(lettered(_named(example), gold, choices, labels), choices)


def relevant_of(example: dspy.Example) -> frozenset[str]:
    """The ids of the passages that an example names as needed for its answer.

    Raises:
        DataError: If they are no list of ids; the message names the question.
    """
    return frozenset(strings(_named(example), example, "relevant"))


def grades_of(example: dspy.Example) -> dict[str, float]:
    """The grades of judged passages by their ids, as ``load_questions`` reads them from judgements; often none.

    Raises:
        DataError: If one is no finite number; the message names the question.
    """
    given = example.get("grades")
    if not isinstance(given, Mapping):
        return {}
    for key, grade in given.items():
        if not is_plain_number(grade) or not math.isfinite(grade):
            raise DataError(f"{_named(example)}: the grade of {shown(key)} must be a number, got {shown(grade)}.")
    return {str(key): float(grade) for key, grade in given.items()}


def check_labels(examples: Iterable[dspy.Example], known: Collection[str] | None) -> list[dspy.Example]:
    """Leave out labels whose passage is not in the corpus, with one warning: no ranking could find them.

    Args:
        examples: The questions; they stay as they are.
        known: Ids of the corpus, at least of all labelled passages that it holds; None checks nothing.

    Returns:
        The questions, those with such a label as copies without it.

    Raises:
        DataError: If no label fits; the message names question and passage.
    """
    found = list(examples)
    if known is None:
        return found
    known = frozenset(known)
    unknown = {place: ids for place, one in enumerate(found) if (ids := relevant_of(one) - known)}
    if not unknown:
        return found
    first = next(iter(unknown))
    message = f"{_named(found[first])}: relevant passage {min(unknown[first])!r} is not in the corpus"
    if not any(relevant_of(one) & known for one in found):
        raise DataError(f"{message}.")
    logger.warning(
        "%s; left out %d labels of %d questions that name no passage of it.",
        message, sum(map(len, unknown.values())), len(unknown),
    )  # fmt: skip
    for place in unknown:
        found[place] = found[place].copy(relevant=[one for one in found[place].relevant if str(one) in known])
    return found


def check_judgeable(examples: Iterable[dspy.Example], name: str) -> None:
    """Make sure that there is something to judge by.

    Raises:
        DataError: If no question has gold answers or labels.
    """
    found = list(examples)
    if not any(answers_of(one) or relevant_of(one) for one in found):
        raise DataError(
            f"{name}: nothing to judge: none of {len(found)} questions has answers (golden_answers, answers or answer) "
            "or labelled passages (metadata.supporting_ids)."
        )


def _named(example: dspy.Example) -> str:
    """An example's name for error messages."""
    key = example.get("id")
    return f"Question {shown(example.get('question') if key is None else key)}"


def answer_texts(example: dspy.Example) -> tuple[str, ...]:
    """The gold answers as text: for multiple choice the text of the right option in place of its letter or number.

    This is what a rationale explains and what a passage may contain.

    Raises:
        DataError: As for ``letters_of``.

    Example:
        >>> answer_texts(dspy.Example(question="Is ice dense?", choices=["yes", "no"], answers=["B"]))
        ('no',)
    """
    choices, labels = options_of(_named(example), example)
    if not choices:
        return answers_of(example)
    options = {chr(ord("A") + position): choice for position, choice in enumerate(choices)}
    said = lettered(_named(example), _golds(example), choices, labels)
    return tuple(dict.fromkeys(options.get(one, one) for one in said))
