"""Field names and shapes of the known datasets: ids, texts, answers, options."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from radio_dspy.core.errors import DataError
from radio_dspy.core.validation import checked_text, is_blank, is_plain_number, plain_text, shown
from radio_dspy.datasets.options import option_letters
from radio_dspy.datasets.reading import BlankRowError, is_empty, is_missing, plain

PASSAGE_IDS = (
    "id",
    "_id",
    "docid",
    "doc_id",
    "pid",
    "passage_id",
    "corpus-id",
    "corpus_id",
    "id_",
    "node_id",
    "page_url",
)
QUESTION_IDS = ("id", "_id", "qid", "query_id", "query-id", "question_id", "example_id", "interaction_id", "pubid")
TEXTS = (
    "text", "page_content", "content", "passage", "passage_text", "paragraph_text", "segment", "body", "document",
    "long_text", "page_snippet",
)  # fmt: skip
QUESTIONS = ("question", "query", "question_stem", "question_text", "user_input", "goal", "queries", "text")
# What says that it is gold comes first: beside it, RAGAS' "answer" is the program's own.
ANSWERS = (
    "golden_answers", "golden_answer", "gold_answers", "gold_answer", "ground_truths", "ground_truth", "answers",
    "answer", "reference_answers", "reference_answer", "possible_answers", "short_answers", "correct_answer",
    "correct_answers", "answerKey", "answer_key", "answer_idx", "answer_index", "cop", "final_decision",
)  # fmt: skip
_ALIASES = ("answer_aliases", "answer_alias", "alt_ans")  # MuSiQue's, 2Wiki's, CRAG's: as right as the answer
# How MS MARCO, TriviaQA and BRIGHT say that there is none, and what a truth value is as a text.
_NO_ANSWER = ("No Answer Present.", "<unk>", "N/A")
_TRUTHS = {True: ("yes", "true"), False: ("no", "false")}
OPTIONS = ("choices", "options")
# A column for each option: bare letters, MedMCQA's, PIQA's, Social IQa's, WinoGrande's, SWAG's and COPA's.
_OPTION_COLUMNS = (
    tuple("ABCDEFGHIJ"), *(tuple(f"{stem}{end}" for end in ends) for stem, ends in (
        ("op", "abcde"), ("answer", "ABCDE"), ("sol", "12"), ("option", "123456789"), ("ending", "0123456789"),
        ("choice", "123456789"),
    ))
)  # fmt: skip
_WRONG = re.compile(r"(distractor|incorrect_answer_?)[1-9]")  # SciQ's, beside the right one
_LANGUAGE = re.compile(r"[a-z]{2,3}([_-][A-Za-z]{2,4})?")
_VERDICTS = {0: "no", 1: "yes", "NO": "no", "YES": "yes"}  # Natural Questions'
LABELS = ("relevant", "supporting_ids", "gold_ids")
_LIKE_AN_ANSWER = re.compile(r"answer|annotation|correct|gold|truth|target|label|solution|response", re.IGNORECASE)
_NO_ANSWERS = re.compile(
    r"answer_(start|type|id)|.*_(type|index|start|end|count|long)|(is_)?answerable|long_answer|labels?"
)
_TEXT_FIELDS = {"text", "value"}
_WRITTEN = re.compile(r"\[\s*['\"].*['\"]\s*,?\s*\]|\{\s*['\"](text|value|label)['\"]\s*:.*\}", re.DOTALL)


def first_of(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of several names under which a row has something; else the first that it has at all."""
    there = [name for name in names if name in row]
    filled = (name for name in there if not is_empty(row[name]))
    return next(filled, there[0] if there else None)


def identifier(where: str, row: Mapping[str, Any], names: Sequence[str]) -> str:
    """A row's id.

    Raises:
        DataError: If it has none, or one that is neither a string nor a whole number.
    """
    name = first_of(row, names)
    value: Any = row[name] if name else None
    whole = is_plain_number(value) and value == int(value)
    if not whole and not (isinstance(value, str) and value.strip()):
        raise DataError(
            f"{where}: needs an 'id' (or '_id') that is a string or a whole number, got {shown(value)}; the row has "
            f"{columns(row)}. Rows without one can be numbered."
        )
    return plain_text(value, f"{where}: 'id'")


def columns(row: Mapping[str, Any]) -> str:
    """The names of a row's fields, for a message."""
    return f"{sorted(map(str, row))!r:.300}"


def text_of(where: str, row: Mapping[str, Any], names: Sequence[str], wanted: str) -> str:
    """A row's text under one of several names.

    Raises:
        DataError: If it has none of them, or something that is no text.
        BlankRowError: If it is empty.
    """
    name = first_of(row, names)
    if name is None:
        raise DataError(f"{where}: needs {wanted!r} (or {names[-1]!r}); the row has {columns(row)}.")
    value = row[name]
    if isinstance(value, Mapping):  # ARC's and Natural Questions' own files, MKQA's translations
        value = next((value[one] for one in ("stem", "text", "en") if isinstance(value.get(one), str)), value)
    if is_missing(value) or (isinstance(value, str) and is_blank(value)):
        raise BlankRowError(f"{where}: {name!r} is empty.")
    if not isinstance(value, str):
        raise DataError(f"{where}: needs a string {name!r}, got {shown(value)}; the row has {columns(row)}.")
    return checked_text(value, f"{where}: {name!r}")


def strings(where: str, row: Any, name: str) -> list[str]:
    """A list of texts; a text alone is a list of one.

    Raises:
        DataError: If it is anything else.
    """
    value = row.get(name)
    if is_missing(value):
        return []
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes | bytearray):
        raise DataError(f"{where}: {name!r} must be a list of strings, got {type(value).__name__}.")
    values = list(value)
    for one in values:
        if not isinstance(one, str) and not is_plain_number(one):
            raise DataError(f"{where}: {name!r} must be a list of strings, got {shown(one)} in it.")
    return [plain_text(one, f"{where}: {name!r}") for one in values]


def golds(where: str, row: Any) -> list[Any]:
    """The gold answers of a row or an example as they stand: texts, and numbers as numbers.

    Raises:
        DataError: If they are none.
    """
    for name in (*ANSWERS, "reference") if "user_input" in row else ANSWERS:  # RAGAS' sets
        found = _gold(where, row, name)
        if found and (found[0] not in _NO_ANSWER or any(one in row for one in OPTIONS)):
            further = [one for alias in _ALIASES for one in _gold(where, row, alias)]
            return list(dict.fromkeys([*found, *further]))
    return _annotated(row) or _labelled(where, row)


def _annotated(row: Any) -> list[str]:
    """The short answers in Natural Questions' annotations, and its yes or no."""
    given = plain(row.get("annotations"))
    found: list[Any] = []
    for one in [given] if isinstance(given, Mapping) else _listed(given):
        if isinstance(one, Mapping):
            shorts = (short for short in _listed(one.get("short_answers")) if isinstance(short, Mapping))
            found += [text for short in shorts for text in _listed(short.get("text"))]
            found += [_VERDICTS[said] for said in _listed(one.get("yes_no_answer")) if said in _VERDICTS]
    return list(dict.fromkeys(one.strip() for one in found if isinstance(one, str) and one.strip()))


def _labelled(where: str, row: Any) -> list[Any]:
    """A label that says true or false (BoolQ's in SuperGLUE), or which of the options is right (PIQA's)."""
    value = plain(row.get("label"))
    truth = {"true": True, "false": False}.get(value.strip().casefold()) if isinstance(value, str) else value
    if isinstance(truth, bool):
        return list(_TRUTHS[truth])
    one = is_plain_number(value) or isinstance(value, str)
    return _gold(where, row, "label") if one and options_of(where, row)[0] else []


def _in_language(where: str, row: Any, value: Mapping[str, Any]) -> Any:
    """Answers that are kept by language, as in MKQA: those in the language of the row's ``query``, or in English."""
    if not all(_LANGUAGE.fullmatch(str(one)) and isinstance(given, list) for one, given in value.items()):
        return value
    asked = row.get("queries")
    same = [one for one, text in asked.items() if text == row.get("query")] if isinstance(asked, Mapping) else []
    known = [one for one in (*same, "en", *value) if one in value]
    if len(value) > 1 and known[0] not in (*same, "en"):
        raise DataError(f"{where}: has answers in {', '.join(value)}; give those in the question's language.")
    return value[known[0]] if known else None


def _gold(where: str, row: Any, name: str) -> list[Any]:
    value = plain(row.get(name))
    if isinstance(value, Mapping):
        value = _in_language(where, row, value)
    if isinstance(value, str):
        written = _written(where, name, value)
        value = value if isinstance(written, Mapping) and not _TEXT_FIELDS.intersection(written) else written
    given = [one for item in _listed(value) for one in _said(item)]
    texts = strings(where, {name: given}, name)
    return [
        int(one) if is_plain_number(one) and one == int(one) else text.strip()
        for one, text in zip(given, texts, strict=True)
        if text.strip()
    ]


def _listed(value: Any) -> list[Any]:
    """The entries of a list; a value alone is a list of one, a missing one of none."""
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping | bytes | bytearray):
        return list(value)
    return [] if is_missing(value) else [value]


def _said(value: Any) -> list[Any]:
    """An answer with its aliases: a text, a truth value, or an object of TriviaQA or SQuAD."""
    if isinstance(value, bool):
        return list(_TRUTHS[value])
    name = next((name for name in ("value", "text") if name in value), None) if isinstance(value, Mapping) else None
    if name:
        return [*_listed(value[name]), *_listed(value.get("aliases"))]
    return [] if is_missing(value) else [value]


def _written(where: str, name: str, value: str) -> Any:
    """A list or an object that a table keeps as JSON; another text that begins like one is itself."""
    try:
        found = json.loads(value) if value.lstrip()[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list | dict):
        return found
    if _WRITTEN.fullmatch(value.strip()):
        raise DataError(f"{where}: {name!r} is the text of a list that is not JSON, {shown(value)}; give a list.")
    return value


def unread_answers(row: Mapping[str, Any]) -> list[str]:
    """Names of a row's fields that look like answers and are not read as any."""
    known = {*ANSWERS, *_ALIASES, *LABELS, "label"}
    return [
        name
        for name, value in row.items()
        if isinstance(name, str) and name not in known and not is_empty(value)
        and _LIKE_AN_ANSWER.search(name) and not _NO_ANSWERS.fullmatch(name)
    ]  # fmt: skip


def options_of(where: str, row: Any) -> tuple[list[str], list[str]]:
    """The options of a multiple-choice question, and their labels where the row has any.

    A list of texts, ARC's ``{"text": [...], "label": [...]}``, a list of such objects, an object ``{"A": ...}``, a
    column for each, or columns of the wrong ones, which stand with the right one in alphabetical order.

    Raises:
        DataError: If they are none of these.
    """
    name = first_of(row, OPTIONS)
    value = plain(row[name]) if name else None
    if isinstance(value, str):
        value = _written(where, str(name), value) if value.strip() else None
    if isinstance(value, str):
        raise DataError(f"{where}: {name!r} is one text, {shown(value)}; give a list of options.")
    stem = row.get("question")
    if value is None and isinstance(stem, Mapping):  # ARC's own files
        name, value = "choices", stem.get("choices")
    if value is None:
        return _option_columns(where, row)
    labels: Any = []
    if isinstance(value, Sequence) and value and all(isinstance(one, Mapping) for one in value):
        value = {
            "text": [next((one[name] for name in ("text", "value") if name in one), None) for one in value],
            "label": [next((one[name] for name in ("label", "key") if name in one), None) for one in value],
        }
    if isinstance(value, Mapping):
        if "text" in value:
            value, labels = value["text"], value.get("label") or []
        else:
            value = {label: one for label, one in value.items() if not is_missing(one)}  # a table fills all alike
            value, labels = list(value.values()), list(value)
    where_named = {name or "choices": value, "label": [one for one in labels if one is not None]}
    texts, named = strings(where, where_named, name or "choices"), strings(where, where_named, "label")
    if not any(texts):
        return [], []
    if named and len(named) != len(texts):
        raise DataError(f"{where}: {len(named)} labels for {len(texts)} {name!r}.")
    return texts, named


def _option_columns(where: str, row: Any) -> tuple[list[str], list[str]]:
    """The options of a row that has a column for each."""
    for names in _OPTION_COLUMNS:
        there = [one for one in names if _is_option(row.get(one))]
        if len(there) > 1 and there == list(names[: len(there)]):
            return [plain_text(row[one], f"{where}: {one!r}") for one in there], list("ABCDEFGHIJ"[: len(there)])
        if len(there) > 2 and there[:2] == list(names[:2]):
            missing = next(one for one in names if one not in there)
            raise DataError(f"{where}: has the options {there} and none as {missing!r}; fill it in.")
    wrong = [name for name in row.keys() if isinstance(name, str) and _WRONG.fullmatch(name) and _is_option(row[name])]  # noqa: SIM118
    right = row.get("correct_answer")
    if not wrong or not _is_option(right):
        return [], []
    texts = [plain_text(one, f"{where}: an option") for one in (right, *(row[name] for name in wrong))]
    return sorted(dict.fromkeys(texts), key=lambda one: (one.casefold(), one)), []


def _is_option(value: Any) -> bool:
    return is_plain_number(value) or (isinstance(value, str) and bool(value.strip()))


def lettered(where: str, gold: Sequence[Any], choices: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Gold answers of a multiple-choice question as letters, then what says the same in other words.

    Args:
        where: The row, for the message.
        gold: As ``golds`` gives them; -1 is how a test split hides one.
        choices: The options.
        labels: What the row calls them, such as ARC's 1 to 4; empty where it does not.

    Raises:
        DataError: If none of them names an option.
    """
    places = {label.strip().casefold(): chr(ord("A") + place) for place, label in enumerate(labels)}
    letters: list[str] = []
    others: list[str] = []
    for one in gold:
        label = places.get(str(one).strip().casefold()) if isinstance(one, str) or labels[:1] == ["1"] else None
        found = (label,) if label else option_letters([one], choices)
        letters += found
        others += [] if found or one == -1 else [str(one)]
    if others and not letters:
        raise DataError(
            f"{where}: the gold answer {shown(gold[0])} is neither a letter, a number nor the text of one of its "
            f"{len(choices)} choices {shown(list(choices))}; give the right option's letter."
        )
    return list(dict.fromkeys([*letters, *others]))
