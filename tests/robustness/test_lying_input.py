"""Input that is not what it says it is: each gives a right result, or an error of this library that names the place."""

import contextlib
import gzip
import io
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import radio_dspy as radio
from radio_dspy.cli.app import app
from radio_dspy.cli.inputs import read_rationales
from radio_dspy.core.errors import DataError, RadioError, SettingsError
from radio_dspy.core.passages import Passage, as_passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.core.validation import is_blank, shown
from radio_dspy.datasets.examples import answers_of, relevant_of
from radio_dspy.distillation import fuse, fused_ranking, min_max, preference_groups
from radio_dspy.evaluation.metrics import ranking_metrics
from radio_dspy.retrievers.requests import distinct_questions, question_id
from tests.settings import radio_of

INPUTS: Counter[str] = Counter()  # how many there were, by what came of them


def thorough(count):
    """The one profile: the same inputs in every run, as many as are said, and no time limit on a single one."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@pytest.fixture(scope="module", autouse=True)
def _counts():
    yield
    print(f"\nlying input: {dict(INPUTS)}, {INPUTS.total()} in all")  # noqa: T201


@dataclass(frozen=True)
class Outcome:
    """A result, or the error in place of one."""

    value: Any = None
    error: RadioError | None = None


def outcome(function, *arguments, names=r"", **options):
    """What a call gives; whatever is not this library's own error goes through, and fails the test."""
    try:
        found = Outcome(function(*arguments, **options))
    except RadioError as error:
        found = Outcome(error=error)
    if found.error:
        assert re.search(names, str(found.error)), str(found.error)
        assert len(str(found.error)) < 1000  # not the megabyte that it is about
    INPUTS["refused" if found.error else "taken"] += 1
    return found


# What lies. Each strategy gives good values as well: a line of nothing but nonsense never gets past its first field.

MEGABYTE = "word " * 200_000
NASTY_TEXTS = {
    "empty": "",
    "blank": " \t\n\u2003",
    "NUL": "\x00",
    "NUL inside": "yeast\x00heat",
    "half a character": "heat \ud800 kills",
    "the other half": "\udfff",
    "right to left": "\u202e\u05d7\u05d5\u05dd\u202c",
    "emoji": "\U0001f9d1\u200d\U0001f52c\U0001f525 yeast",
    "control characters": "\x01\x1b[31mred\x07\x08\x7f\x85",
    "line breaks": "a\r\nb\rc\u2028d\u2029e\x0b\x0c",
    "byte order mark": "\ufeffyeast",
    "combining": "e" + "\u0301" * 500,
    "no character": "\uffff\ufffe\U0010ffff",
    "an injected line": '"}\n{"id": "evil", "contents": "evil"}',
    "a path": "../../etc/passwd",
    "a number": "NaN",
}
texts = st.one_of(
    st.sampled_from(sorted(NASTY_TEXTS.values())),
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs"]), max_size=5),
)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 10**400, 10**5000, math.nan, math.inf, -math.inf, 5e-324, 1.7e308, -1.7e308]),
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    texts,
    st.binary(max_size=4),
    st.sampled_from([[], {}, (), [[]], {"a": 1}, [None], object(), 1j, frozenset({"p1"}), np.array(["x", "y"])]),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def mostly(good, bad=odd):
    """A good value nine times in ten."""
    return st.integers(0, 9).flatmap(lambda roll: bad if roll == 0 else good)


def rows_of(needed, optional, bad):
    """Rows with the needed fields, some of the others, and now and then one field missing or of another kind."""
    good = st.fixed_dictionaries(needed, optional=optional)
    names = [*needed, *optional]

    @st.composite
    def row(draw):
        fields = draw(good)
        name = draw(st.sampled_from(names))
        roll = draw(st.integers(0, 9))
        if roll == 0:
            fields.pop(name, None)
        elif roll == 1:
            fields[name] = draw(bad)
        return fields

    return row()


plain_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
ids = st.one_of(st.sampled_from(["p1", "p2", "q1", "q2"]), st.integers(0, 99), plain_texts)
corpus_rows = {
    "FlashRAG": ({"id": ids, "contents": plain_texts}, {}),
    "BEIR": ({"_id": ids, "text": plain_texts}, {"title": st.one_of(plain_texts, st.just(""), st.integers())}),
}
question_fields = (
    {"id": ids, "question": plain_texts},
    {
        "golden_answers": st.lists(plain_texts, max_size=3),
        "metadata": st.fixed_dictionaries({}, optional={"supporting_ids": st.lists(ids, max_size=2)}),
        "choices": st.lists(plain_texts, max_size=4),
    },
)
group_fields = (
    {
        "query": plain_texts,
        "pos": st.lists(plain_texts, min_size=1, max_size=2),
        "neg": st.lists(plain_texts, max_size=3),
    },
    {"prompt": plain_texts, "id": ids},
)
rationale_fields = ({"id": st.sampled_from(["q1", "q2"]), "rationale": plain_texts}, {})
odd_in_json = st.one_of(json_values, st.integers(10**310, 10**320), st.sampled_from(sorted(NASTY_TEXTS.values())))


def files_of(fields):
    """The bytes of a JSON Lines file whose lines may be cut off, of another kind, blank or not UTF-8."""
    line = st.one_of(
        rows_of(*fields, odd_in_json).map(lambda row: json.dumps(row).encode()),
        rows_of(*fields, odd_in_json).map(lambda row: json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")),
    )
    broken = st.one_of(
        json_values.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=12),
        st.sampled_from([b"", b" \t", b"{", b"\xef\xbb\xbf{}", b"\xff\xfe", b"null", b"[" * 5000, b"\x00", b"NaN"]),
        line.map(lambda data: data[: len(data) // 2]),
    )
    lines = st.lists(mostly(line, mostly(line, broken)), max_size=4)
    ends = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"])
    marks = st.sampled_from([b"", b"", b"\xef\xbb\xbf"])
    return st.builds(lambda rows, end, mark: mark + end.join(rows), lines, ends, marks)


def lines_of(data):
    """The lines that hold something, as a reader of text files sees them; an empty array is a file without rows."""
    text = data.decode("utf-8-sig", "replace")
    return [line for line in re.split(r"\r\n|\r|\n", text) if line.strip() not in ("", "[]")]


def written(folder, data, name="input.jsonl"):
    path = folder / name
    path.write_bytes(data)
    return path


NAMED_LINE = r"input\.jsonl(:\d+: .|: row \d+: .|: holds no |: not a whole gzip file)"


# Loaders


def check_corpus(data, folder):
    found = outcome(radio.load_corpus, written(folder, data), names=NAMED_LINE)
    if found.error is None:
        loaded = [json.loads(line) for line in lines_of(data)]
        filled = [row for row in loaded if not is_blank(str(row.get("contents", row.get("text")) or ""))]
        titled = [row for row in loaded if not is_blank(str(row.get("title") or ""))]
        rows = {key_of(row): row for row in (*titled, *filled)}
        assert len({one.id for one in found.value}) == len(found.value) <= len(rows)
        assert {key_of(row) for row in filled} <= {one.id for one in found.value}
        for one in found.value:
            row = rows[one.id]
            assert one.text.strip()
            assert one.text in str(row.get("contents", row.get("text")) or "") or one.text == str(row["title"]).strip()
            f"{one.id}{one.contents}".encode()  # every file takes it


def key_of(row):
    key = next((row[name] for name in ("id", "_id") if row.get(name) not in (None, "", [], {})), None)
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)


def check_questions(data, folder):
    found = outcome(radio.load_questions, written(folder, data), names=NAMED_LINE)
    if found.error is None:
        rows = [json.loads(line) for line in lines_of(data)]
        rows = [row for row in rows if not is_blank(str(row.get("question", row.get("text")) or ""))]
        named = [row for row in rows if "id" in row or "_id" in row]
        assert len({key_of(row) for row in named}) <= len(found.value) <= len(rows)
        answers = {one.id: [] for one in found.value}
        for row in named:  # one line for each of its answers
            given = row.get("golden_answers") or row.get("answers") or []
            given = [given] if isinstance(given, str | int | float) else given
            answers[key_of(row)] += [str(one).strip() for one in given if str(one).strip()]
        for one in found.value:
            if "choices" not in one and not one.id.startswith("q-"):  # made from its text
                assert set(one.answers) == set(answers[one.id])
            assert all(isinstance(text, str) and text != "nan" for text in one.answers if text not in NASTY_TEXTS)
            f"{one.id}{one.question}{one.answers}{one.relevant}".encode()


def check_groups(data, folder):
    found = outcome(radio.load_groups, written(folder, data), names=NAMED_LINE)
    if found.error is None:
        rows = [json.loads(line) for line in lines_of(data)]
        texts = [[[row[name]] if isinstance(row[name], str) else row[name] for name in ("pos", "neg")] for row in rows]
        kept = [both for both in texts if not any(is_blank(one) for part in both for one in part)]
        assert [[one.pos, one.neg] for one in found.value] == kept
        for one in found.value:
            f"{one.question}{one.pos}{one.neg}{one.get('prompt')}{one.get('id')}".encode()
            for name, of in (("pos_scores", one.pos), ("neg_scores", one.neg)):
                assert len(one.get(name) or of) == len(of)
                assert all(math.isfinite(score) for score in one.get(name) or [])


QUESTIONS = [
    dspy.Example(id=f"q{number}", question=f"Why {number}?", answers=["heat"]).with_inputs("question")
    for number in (1, 2, 3)
]


def check_rationales(data, folder):
    path = written(folder, data)
    with contextlib.redirect_stderr(io.StringIO()):  # a second rationale of a question is told there
        found = outcome(read_rationales, path, QUESTIONS, QUESTIONS, names=NAMED_LINE)
    if found.error is None:
        rows = [json.loads(line) for line in lines_of(data)]
        first = {str(row["id"]): row["rationale"] for row in reversed(rows)}
        assert found.value == first


LOADERS = {
    "FlashRAG corpus": (check_corpus, corpus_rows["FlashRAG"]),
    "BEIR corpus": (check_corpus, corpus_rows["BEIR"]),
    "questions": (check_questions, question_fields),
    "groups": (check_groups, group_fields),
    "rationales": (check_rationales, rationale_fields),
}
loaders = pytest.mark.parametrize("kind", LOADERS)


def try_files(kind, folder, count):
    check, fields = LOADERS[kind]

    @thorough(count)
    @given(files_of(fields))
    def each(data):
        check(data, folder)

    each()


@loaders
def test_files(kind, tmp_path):
    try_files(kind, tmp_path, 40)


@pytest.mark.slow
@loaders
def test_many_files(kind, tmp_path):
    try_files(kind, tmp_path, 600)


def good_line(kind):
    return {
        "FlashRAG corpus": {"id": "p1", "contents": "Ice\nIt floats."},
        "BEIR corpus": {"_id": "p1", "text": "It floats.", "title": "Ice"},
        "questions": {"id": "q1", "question": "Why?", "golden_answers": ["heat"]},
        "groups": {"query": "Why?", "pos": ["yeast"], "neg": ["ice"]},
        "rationales": {"id": "q1", "rationale": "Heat kills yeast."},
    }[kind]


TEXT_FIELDS = {
    "FlashRAG corpus": "contents",
    "BEIR corpus": "text",
    "questions": "question",
    "groups": "query",
    "rationales": "rationale",
}


@loaders
@pytest.mark.parametrize("name", NASTY_TEXTS)
def test_nasty_texts_in_files(kind, name, tmp_path):
    row = {**good_line(kind), TEXT_FIELDS[kind]: NASTY_TEXTS[name]}
    LOADERS[kind][0](json.dumps(row).encode(), tmp_path)


@loaders
def test_a_megabyte_of_text_is_one_line(kind, tmp_path):
    row = {**good_line(kind), TEXT_FIELDS[kind]: MEGABYTE}
    LOADERS[kind][0](json.dumps(row).encode(), tmp_path)


def spoilt(good):
    """The files that are something else, from a good line; what their message says."""
    line = json.dumps(good).encode()
    return {
        "truncated JSON": (line + b"\n" + line[:-9], r"input\.jsonl:2: not JSON"),
        "packed under a plain name": (gzip.compress(line), r"input\.jsonl:1: not UTF-8.*must end in \.gz"),
        "UTF-16": (line.decode().encode("utf-16"), r"input\.jsonl:1: not UTF-8"),
        "Latin-1 in the last of many lines": (b"\n" * 200 + b'{"id": "caf\xe9"}', r"input\.jsonl:201: not UTF-8"),
        "two objects in a line": (line + line, r"input\.jsonl:1: not JSON"),
        "a second byte order mark": (line + b"\n\xef\xbb\xbf" + line, r"input\.jsonl:2: not JSON"),
        "a list in a list": (b"[[" + line + b"]]", r"input\.jsonl: row 1: expected a JSON object, got list"),
        "half a list of rows": (b"[" + line + b",\n", r"input\.jsonl:\d: not JSON"),
        "deeper than a parser goes": (b"[" * 100_000, r"input\.jsonl:1: not JSON"),
        "more digits than Python reads": (b'{"id": ' + b"9" * 5000 + b"}", r"input\.jsonl:1: not JSON"),
        "nothing": (b"", r"input\.jsonl: holds no "),
        "a byte order mark alone": (b"\xef\xbb\xbf", r"input\.jsonl: holds no "),
        "NULs": (b"\x00" * 4096, r"input\.jsonl:1: not JSON"),
    }


@loaders
@pytest.mark.parametrize("how", sorted(spoilt({})))
def test_files_that_are_something_else(kind, how, tmp_path):
    data, message = spoilt(good_line(kind))[how]
    path = written(tmp_path, data)
    if kind == "rationales":
        found = outcome(read_rationales, path, QUESTIONS, QUESTIONS, names=message)
    else:
        reader = {"questions": radio.load_questions, "groups": radio.load_groups}.get(kind, radio.load_corpus)
        found = outcome(reader, path, names=message)
    if kind == "rationales" and "holds no" in message:  # none is none: the LM writes them, or nobody
        assert found.value == {}
    else:
        assert found.error


@loaders
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\n\n\r\n"])
def test_line_ends_and_a_byte_order_mark_change_nothing(kind, end, tmp_path):
    good = good_line(kind)
    other = {**good, **({"id": "q2"} if "id" in good else {"_id": "p2"} if "_id" in good else {"id": 7})}
    LOADERS[kind][0](b"\xef\xbb\xbf" + end.join(json.dumps(row).encode() for row in (good, other)) + end, tmp_path)


READERS = {"corpus": radio.load_corpus, "questions": radio.load_questions, "groups": radio.load_groups}
readers = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


@readers
@pytest.mark.parametrize("cut", [0, 5, 12, 30])
def test_a_packed_file_that_is_cut_off(reader, cut, tmp_path):
    data = gzip.compress(json.dumps(good_line("FlashRAG corpus")).encode() * 50)
    path = written(tmp_path, data[:cut], "input.jsonl.gz")
    assert outcome(reader, path, names=r"input\.jsonl\.gz: (not a whole gzip file|holds no)").error


@readers
def test_a_plain_file_with_a_packed_name(reader, tmp_path):
    path = written(tmp_path, json.dumps(good_line("FlashRAG corpus")).encode(), "input.jsonl.gz")
    assert outcome(reader, path, names=r"input\.jsonl\.gz: not a whole gzip file").error


@readers
@pytest.mark.parametrize("name", ["", "nowhere", "x" * 5000, "a\x00b", "\udcff", "~", "https://example.org/x"])
def test_files_that_are_not_there(reader, name, tmp_path):
    assert outcome(reader, tmp_path / "folder" / name, names=r"no such file|cannot be read").error


@readers
def test_a_folder_in_place_of_a_file(reader, tmp_path):
    assert outcome(reader, tmp_path, names=f"{re.escape(str(tmp_path))}: is a folder").error


@readers
@pytest.mark.parametrize("source", [None, 5, b"input.jsonl", {"id": "p1"}, 1j, True], ids=repr)
def test_sources_that_are_none(reader, source):
    assert outcome(reader, source, names=r"Expected a file name or a list of rows, got \w+").error


def try_rows(count):
    rows = st.one_of(rows_of(*corpus_rows["BEIR"], odd), rows_of(*question_fields, odd), odd)

    @thorough(count)
    @given(st.lists(rows, max_size=3))
    def each(given_rows):
        for reader in READERS.values():
            found = outcome(reader, given_rows, names=r"^row \d+: .|^the rows: holds no ")
            if found.error is None and reader is radio.load_corpus:
                assert len({one.id for one in found.value}) == len(found.value) <= len(given_rows)
            assert found.error or len(found.value) <= len(given_rows)

    each()


def test_rows_in_memory():
    try_rows(60)


@pytest.mark.slow
def test_many_rows_in_memory():
    try_rows(1500)


def try_kept_groups(count):
    """What a run keeps: passages by id."""
    corpus = [Passage("p1", "yeast"), Passage("p2", "ice")]
    known = st.sampled_from(["p1", "p2"])
    fields = {
        "id": ids,
        "query": plain_texts,
        "positive": mostly(known),
        "negatives": mostly(st.lists(known, max_size=2)),
    }
    optional = {"random": st.lists(known, max_size=2), "scores": mostly(st.lists(st.floats(-1, 1), max_size=4))}

    @thorough(count)
    @given(rows_of(fields, optional, odd))
    def each(row):
        found = outcome(radio.load_groups, [row], corpus, names=r"^row 1: .")
        if found.error is None and "positive" in row:
            assert found.value[0].pos == [{"p1": "yeast", "p2": "ice"}[row["positive"]]]
            assert len(found.value[0].neg) == len(row.get("negatives") or []) + len(row.get("random") or [])

    each()


def test_kept_groups():
    try_kept_groups(50)


@pytest.mark.slow
def test_many_kept_groups():
    try_kept_groups(2000)


def try_judgements(folder, count):
    field = st.one_of(st.sampled_from(["q1", "p1", "1", "0", "query-id", "corpus-id", "score", "1.5", "-1"]), texts)
    lines = st.lists(st.lists(field, max_size=4).map("\t".join), max_size=4)
    questions = [{"id": "q1", "question": "Why?"}]

    @thorough(count)
    @given(lines, st.sampled_from(["\n", "\r\n"]))
    def each(rows, end):
        path = written(folder, end.join(rows).encode("utf-8", "surrogatepass"), "qrels.tsv")
        names = r"qrels\.tsv(:\d+: expected query id|:\d+: not UTF-8|: judges question|: holds no judgement)"
        found = outcome(radio.load_questions, questions, path, names=names)
        if found.error is None:
            cells = [line.split("\t") for line in re.split(r"\r\n|\r|\n", end.join(rows))]
            assert found.value[0].relevant == list(
                dict.fromkeys(row[-2] for row in cells if row[0] == "q1" and row[-1] in ("1", "1.5"))
            )

    each()


def test_judgements(tmp_path):
    try_judgements(tmp_path, 40)


@pytest.mark.slow
def test_many_judgements(tmp_path):
    try_judgements(tmp_path, 600)


# Retriever


@pytest.fixture(scope="module")
def trio(small):
    return radio.FaissRetriever.build([Passage(one, f"text of {one}") for one in "abc"], encoder=small)


def check_build(passages, encoder, folder):
    found = outcome(
        radio.FaissRetriever.build, passages, encoder, names=r"Passages must be|[Pp]assage (\d|'|id )|got none"
    )
    if found.error is None:
        assert [one.id for one in found.value.passages] == [one.id for one in passages]
        assert np.isfinite(found.value.vectors([one.id for one in passages])).all()
        found.value.save(folder / "index")
        again = radio.FaissRetriever.load(folder / "index", encoder)
        assert [one.id for one in again.passages] == [one.id for one in passages]


def try_builds(encoder, folder, count):
    passages = st.builds(Passage, mostly(ids.map(str)), mostly(plain_texts), mostly(st.just("")))

    @thorough(count)
    @given(st.lists(mostly(passages, mostly(passages)), max_size=3))
    def each(given_passages):
        check_build(given_passages, encoder, folder)

    each()


def test_builds(small, tmp_path):
    try_builds(small, tmp_path, 25)


@pytest.mark.slow
def test_many_builds(small, tmp_path):
    try_builds(small, tmp_path, 500)


@pytest.mark.parametrize("field", ["id", "text", "title"])
@pytest.mark.parametrize("name", NASTY_TEXTS)
def test_nasty_passages_are_built_and_read_again_or_refused(field, name, small, tmp_path):
    values = {"id": "p1", "text": "yeast", "title": "Bread", field: NASTY_TEXTS[name]}
    check_build([Passage("first", "ice"), Passage(**values)], small, tmp_path)


@pytest.mark.parametrize(
    "passages", [None, 5, "abc", b"abc", {"a": "b"}, [], [None], ["text"], [{"id": "p1"}]], ids=repr
)
def test_corpora_that_are_none(passages, small):
    assert outcome(radio.FaissRetriever.build, passages, small, names="must be a list|Passage 0: needs|got none").error


def check_search(queries, k, index):
    found = outcome(index.search, queries, k, names=r"^k must be at least 1|^Quer(y \d|ies must)")
    if found.error is None:
        assert [one.query for one in found.value] == list(queries)
        for ranking in found.value:
            assert len(ranking) == len(set(ranking.ids)) == min(k, len(index))
            assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
            assert all(math.isfinite(score) for score in ranking.scores)


def try_searches(index, count):
    lists = mostly(st.lists(mostly(texts), max_size=2))

    @thorough(count)
    @given(lists, mostly(st.integers(1, 9)))
    def each(queries, k):
        check_search(queries, k, index)

    each()


def test_searches(trio):
    try_searches(trio, 40)


@pytest.mark.slow
def test_many_searches(trio):
    try_searches(trio, 1000)


@pytest.mark.parametrize("name", NASTY_TEXTS)
def test_nasty_queries(name, trio):
    check_search([NASTY_TEXTS[name]], 2, trio)


def test_a_megabyte_is_searched_for(trio):
    check_search([MEGABYTE], 3, trio)


# Rerankers


@pytest.fixture(scope="module")
def rerankers(small):
    return {name: radio.Rerank(small, name, new_head=True) for name in ("bi-encoder", "cross-encoder")}


def check_order(found, passages, k):
    if found.error is None:
        assert len(found.value.passages) == len(found.value.scores) == min(k or len(passages), len(passages))
        order = found.value.get("indices", found.value.get("order"))
        assert len(set(order)) == len(order)
        given_passages, pairs = list(passages), zip(found.value.passages, order, strict=True)
        assert all(one is given_passages[place] or one == given_passages[place] for one, place in pairs)
        assert k or sorted(order) == list(range(len(passages)))
        assert list(found.value.scores) == sorted(found.value.scores, reverse=True)
        assert all(math.isfinite(score) for score in found.value.scores)


NAMED_PASSAGE = r"^Passages? (\d|'|must)|^The (query|question|rationale|answers)|^Answer \d|^k must be at least 1"
passage_lists = mostly(
    st.lists(
        mostly(
            st.one_of(
                texts,
                st.builds(Passage, st.just("p1"), mostly(texts), st.just("")),
                st.fixed_dictionaries({"text": mostly(texts)}, optional={"id": odd, "title": odd}),
                st.fixed_dictionaries({"contents": mostly(texts)}),
            )
        ),
        max_size=3,
    )
)


def try_reranks(rerank, count):
    @thorough(count)
    @given(mostly(texts), passage_lists, mostly(st.sampled_from([None, 1, 2])))
    def each(query, passages, k):
        check_order(outcome(rerank, query, passages, k, names=NAMED_PASSAGE), passages, k)

    each()


architectures = pytest.mark.parametrize("architecture", ["bi-encoder", "cross-encoder"])


@architectures
def test_reranks(architecture, rerankers):
    try_reranks(rerankers[architecture], 40)


@pytest.mark.slow
@architectures
def test_many_reranks(architecture, rerankers):
    try_reranks(rerankers[architecture], 800)


@architectures
@pytest.mark.parametrize("name", NASTY_TEXTS)
def test_nasty_passages_are_ranked(architecture, name, rerankers):
    for query, passages in (("why?", [NASTY_TEXTS[name], "yeast"]), (NASTY_TEXTS[name], ["ice", "yeast"])):
        check_order(outcome(rerankers[architecture], query, passages, names=NAMED_PASSAGE), passages, None)


@pytest.mark.parametrize("architecture", ["bi-encoder", pytest.param("cross-encoder", marks=pytest.mark.slow)])
def test_a_megabyte_is_ranked(architecture, rerankers):
    passages = ["ice", MEGABYTE]
    found = outcome(rerankers[architecture], "why?", passages)
    assert found.error is None
    check_order(found, passages, None)


def try_guided(teacher, count):
    @thorough(count)
    @given(mostly(texts), mostly(st.lists(mostly(texts), max_size=2)), mostly(texts), passage_lists)
    def each(question, answers, rationale, passages):
        found = outcome(teacher, question, answers, rationale, passages, names=NAMED_PASSAGE)
        check_order(found, passages, None)

    each()


def test_guided_reranks(small):
    try_guided(radio.RationaleRerank(small), 40)


@pytest.mark.slow
def test_many_guided_reranks(small):
    try_guided(radio.RationaleRerank(small), 800)


# Fusion and groups


def try_fusion(count):
    names = mostly(st.sampled_from(["a", "b"]), st.one_of(st.integers(), st.none(), texts))
    scores = mostly(st.lists(mostly(st.floats(-1, 1), numbers), min_size=2, max_size=2))
    weights = mostly(st.floats(0, 2))
    request = RankRequest("q1", "why?", (Passage("a", "x"), Passage("b", "y")), (1.0, 0.5))

    @thorough(count)
    @given(mostly(st.dictionaries(names, scores, max_size=2)), weights, st.booleans())
    def each(signals, weight, fitting):
        weighed = dict.fromkeys(signals if fitting and isinstance(signals, dict) else ["a", "b"], weight)
        found = outcome(fuse, signals, weighed, names=r"[Ss]ignal|to fuse|Fused")
        if found.error is None:
            assert len(found.value) == len(next(iter(signals.values())))
            top = sum(map(float, weighed.values()))
            assert all(0 <= one <= top * (1 + 1e-12) for one in found.value)
            ranking = outcome(fused_ranking, request, signals, weighed, names=r"Question 'q1'")
            if ranking.error is None:
                assert sorted(ranking.value.ids) == ["a", "b"]
                assert sorted(ranking.value.scores) == sorted(found.value)

    each()


def test_fusion():
    try_fusion(100)


@pytest.mark.slow
def test_much_fusion():
    try_fusion(3000)


@pytest.mark.parametrize(
    "scores", [None, 5, "12", b"12", {0: 1.0}, {1.0, 2.0}, [[1.0]], [None], ["1"], [1j], 1j], ids=repr
)
def test_scores_that_are_none(scores):
    for found in (outcome(min_max, scores), outcome(fuse, {"a": scores}, {"a": 1})):
        assert re.search(r"needs a list of scores, got|score at position 0 is", str(found.error))


def try_groups(count):
    names = st.lists(
        mostly(st.sampled_from([f"p{i}" for i in range(30)]), mostly(plain_texts)), max_size=25, unique_by=shown
    )
    whole = mostly(st.integers(2, 30))

    @thorough(count)
    @given(
        mostly(names),
        mostly(st.sampled_from(["shift", "shift_all_neg", "iteration", "all"])),
        whole,
        whole,
        mostly(st.sampled_from([None, (0, 3), (2, 9)])),
    )
    def each(ranking, sampling, depth, block, hard):
        found = outcome(
            preference_groups,
            ranking,
            sampling,
            depth,
            block=block,
            negative_range=hard,
            names=r"depth and block|negative_range|sampling must|[Rr]anking",
        )
        if found.error is None:
            place = {one: position for position, one in enumerate(list(ranking)[:depth])}
            assert found.value or len(place) < 2 or hard is not None
            for positive, negatives in found.value:
                # Preferred over what stands behind it, each once, and over nothing else.
                assert all(place[positive] < place[one] for one in negatives)
                assert len(set(negatives)) == len(negatives) > 0
                assert all(isinstance(one, str) for one in (positive, *negatives))

    each()


def test_groups():
    try_groups(100)


@pytest.mark.slow
def test_many_groups():
    try_groups(3000)


# Compile

FACTS = [
    "Ice floats because it is light.",
    "Yeast dies of heat.",
    "Evaporation cools the jug.",
    "Salt keeps the fish.",
    "Bread rises with yeast.",
    "Wax seals the jar.",
]
ASKED = [
    ("Why does ice float?", "light"),
    ("Why did the dough not rise?", "heat"),
    ("Why is the jug cool?", "evaporation"),
    ("Why is the fish still good?", "salt"),
]
LIES = {
    # name: (what the first question has, what the rationales have, what the error names, if it is one)
    "a rationale that is a number": ({}, {"q1": 5}, r"rationale of 'q1': needs a string, got 5"),
    "a rationale that is none": ({}, {"q1": None}, r"rationale of 'q1': needs a string, got None"),
    "half a character in a rationale": (
        {},
        {"q1": "heat \ud800"},
        r"rationale of 'q1': contains an unpaired",
    ),
    "a rationale without a question": ({}, {"": "heat"}, r"rationale was given for ''"),
    "rationales in a list": ({}, ["heat"], r"give a dict, got list"),
    "a rationale of NULs and emoji": ({}, {"q1": "heat \x00\U0001f525\u202e"}, None),
    "a blank rationale": ({}, {"q1": " \n"}, None),
    "an answer that is a number": ({"answers": 5}, {}, None),
    "an answer that is not a number": ({"answers": [math.nan]}, {}, None),
    "answers in a dict": (
        {"answers": {"light": 1}},
        {},
        r"'q0': 'answers' must be a list of strings, got \{'light': 1\}",
    ),
    "half a character in an answer": (
        {"answers": ["\ud800"]},
        {"q0": "light"},
        r"'q0': 'answers': contains an unpaired",
    ),
    "no answer": ({"answers": []}, {}, None),
    "an id that is 0": ({"id": 0}, {"0": "Ice is light."}, None),
    "half a character in an id": ({"id": "\udfff"}, {}, r"Example 0, id: contains an unpaired"),
    "an id that is another's": ({"id": "q1"}, {}, r"Two questions share the id 'q1'"),
    "no question": ({"question": None}, {}, r"Example 0 has no 'question'"),
    "half a character in a question": ({"question": "\ud800"}, {}, r"Question 'q0': contains an unpaired"),
    "a question of NULs": ({"question": "\x00\x01"}, {}, None),
    "labels that are a number": ({"relevant": 5}, {}, r"'q0': 'relevant' must be a list of strings, got int"),
    "an empty label": ({"relevant": [""]}, {}, r"'q0': relevant passage '' is not in the corpus"),
    "a label of no passage": ({"relevant": ["p99"]}, {}, r"'q0': relevant passage 'p99' is not in the corpus"),
    "choices that are a number": ({"choices": 5}, {}, r"'q0': 'choices' must be a list of strings, got int"),
}


@pytest.fixture(scope="module")
def pantry(small):
    return radio.FaissRetriever.build([Passage(f"p{i}", text) for i, text in enumerate(FACTS)], encoder=small)


def examples(**first):
    rows = [{"id": f"q{i}", "question": text, "answers": [answer]} for i, (text, answer) in enumerate(ASKED)]
    rows[0] |= first
    return [dspy.Example(**row).with_inputs("question") for row in rows]


def compiled(pantry, train, rationales, folder):
    program = radio.RetrieveRerankAnswer(pantry, radio.Rerank(pantry.encoder, "bi-encoder"), candidates=6, k=3)
    optimizer = radio_of(
        False,
        rationales=rationales,
        gate=False,
        epochs=1,
        max_length=16,
        candidates=6,
        run_dir=folder / "run",
    )
    optimizer.compile(program, trainset=train[:3], valset=train[3:])
    return optimizer.report


def check_compile(pantry, first, rationales, message, folder):
    train = examples(**first)
    found = outcome(compiled, pantry, train, rationales, folder, names=message or "$^")
    assert (found.error is None) == (message is None)
    if found.error is None:
        questions = found.value.questions
        assert questions["train"] == 3
        assert questions["used"] + sum(questions["skipped"].values()) == 3
        assert found.value.rationales["given"] == sum(bool(text.strip()) for text in rationales.values())
        kept = [json.loads(line) for line in (folder / "run" / "groups.jsonl").open(encoding="utf-8")]
        assert {row["id"] for row in kept} <= {question_id(one) for one in train[:3]}
        assert len(kept) == found.value.groups > 0


QUICK = [name for name, (_, _, message) in LIES.items() if message is not None]


@pytest.mark.parametrize("name", QUICK)
def test_lies_that_compile_refuses(name, pantry, tmp_path):
    check_compile(pantry, *LIES[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LIES if name not in QUICK])
def test_lies_that_compile_takes(name, pantry, tmp_path):
    check_compile(pantry, *LIES[name], tmp_path)


def try_questions(pantry, count):
    """What is checked of every question before anything is computed."""
    example = rows_of(
        {"question": plain_texts},
        {"id": ids, "answers": st.lists(texts, max_size=2), "relevant": st.lists(ids, max_size=2), "choices": odd},
        odd,
    ).map(lambda row: dspy.Example(**row).with_inputs("question"))
    check = radio_of(False, gate=False)
    student = radio.RetrieveRerankAnswer(pantry, radio.Rerank(pantry.encoder, "bi-encoder"), candidates=6, k=3)

    @thorough(count)
    @given(st.lists(mostly(example, mostly(example)), min_size=1, max_size=3))
    def each(train):
        found = outcome(
            check.estimate, student, trainset=train, valset=examples()[3:], names=r"Example \d|Question |share the id"
        )
        if found.error is None:
            assert found.value.calls == 0
            assert all(isinstance(text, str) for one in distinct_questions(train).values() for text in answers_of(one))
            labels = {key for one in train for key in relevant_of(one)}  # those of no passage are left out
            assert not labels or labels & {one.id for one in pantry.passages}

    each()


def test_questions_that_are_estimated(pantry):
    try_questions(pantry, 20)


@pytest.mark.slow
def test_many_questions_that_are_estimated(pantry):
    try_questions(pantry, 500)


# The command line


class Files:
    """The files of a small run, as the command line reads them; each can be another."""

    def __init__(self, folder: Path, encoder: str):
        self.folder, self.encoder = folder, encoder
        self.corpus = self.write("corpus", [{"id": f"p{i}", "contents": text} for i, text in enumerate(FACTS)])
        rows = [{"id": f"q{i}", "question": text, "golden_answers": [one]} for i, (text, one) in enumerate(ASKED)]
        self.train, self.dev = self.write("train", rows[:3]), self.write("dev", rows[3:])

    def write(self, name, rows):
        data = rows if isinstance(rows, bytes) else "\n".join(map(json.dumps, rows)).encode()
        return written(self.folder, data, f"{name}.jsonl")

    def index(self, corpus=None, out="index"):
        return ["index", corpus or self.corpus, self.folder / out, "--encoder", self.encoder]

    def compile(self, *changes, train=None, out="aligned"):
        given_options = ["--corpus", self.corpus, "--encoder", self.encoder, "--reranker", self.encoder, "--lm", "none"]
        given_options += ["--epochs", 1, "--max-length", 16, "--no-gate", "--candidates", 6, "--k", 3]
        target = ["--train", train or self.train, "--dev", self.dev, "--out", self.folder / out]
        return ["compile", *given_options, *target, *changes]

    def evaluate(self, *changes, questions=None):
        options = ["--corpus", self.corpus, "--encoder", self.encoder, "--questions", questions or self.dev]
        return ["evaluate", self.folder / "aligned", *options, *changes]


@pytest.fixture
def files(small, tmp_path):
    return Files(tmp_path, small.name)


def check_command(arguments, names=None):
    """A command ends well, or with one line that names the place; nothing else reaches the terminal."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if isinstance(done.exception, Exception):
        raise done.exception
    INPUTS["refused" if done.exit_code else "taken"] += 1
    assert done.exit_code in ((1, 2) if names else (0,)), done.output
    if names:
        told = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr).split())
        assert re.search(names, told), told
        assert "Traceback" not in done.output
    return done


BAD_FILES = {
    "truncated JSON": (b'{"id": "p1", "conte', r"error: \S+/bad\.jsonl:1: not JSON"),
    "nothing": (b"", r"error: \S+/bad\.jsonl: holds no "),
    "packed": (gzip.compress(b"{}"), r"error: \S+/bad\.jsonl:1: not UTF-8"),
    "a list": (b"[1]", r"error: \S+/bad\.jsonl: row 1: expected a JSON object, got int"),
    "an id that is true": (b'{"id": true}', r"error: \S+/bad\.jsonl:1: needs "),
    "half a character": (
        b'{"id": "\\ud800", "contents": "x", "question": "x"}',
        r"bad\.jsonl:1: 'id': contains an unpaired",
    ),
}


@pytest.mark.parametrize("how", BAD_FILES)
def test_bad_files_on_the_command_line(how, files):
    data, message = BAD_FILES[how]
    bad = files.write("bad", data)
    check_command(files.index(bad), message)
    check_command(files.compile(train=bad), message)
    check_command(files.compile("--corpus", bad), message)
    check_command(files.evaluate(questions=bad), message)
    assert sorted(path.name for path in files.folder.iterdir()) == [
        "bad.jsonl",
        "corpus.jsonl",
        "dev.jsonl",
        "train.jsonl",
    ]


BAD_OPTIONS = {
    "a folder as training questions": (["--train", "{folder}"], r"error: \S+corpus\.jsonl:1: needs 'question'"),
    "a file as run folder": (["--run-dir", "{corpus}"], r"corpus\.jsonl: is a file; run_dir must be a folder"),
    "a file as index": (["--index", "{corpus}"], r"Give either --index"),
    "a file as program": (["--out", "{corpus}"], r"corpus\.jsonl: already there; give a new folder"),
    "a file as weights": (["--reranker", "{corpus}"], r"corpus\.jsonl: no such folder"),
    "a file that is no rationales": (["--rationales", "{corpus}"], r"corpus\.jsonl:1: needs 'id' and a string 'rat"),
    "no questions to use": (["--limit", "0"], r"Invalid value for '--limit'"),
    "fewer than no questions": (["--limit", "-1"], r"Invalid value for '--limit'"),
    "an LM without a name": (["--lm", " "], r"--lm is empty"),
    "a seed of no machine": (["--seed", "9" * 30], r"seed must be a whole number between"),
    "a rate that is no number": (["--learning-rate", "nan"], r"learning_rate must be above 0, got nan"),
    "a weight that is no number": (
        ["--rationale-weight", "nan"],
        r"weight of rationales must lie in \[0, 1\], got nan",
    ),
    "a share that is no number": (
        ["--confident-share", "inf"],
        r"confident_share must lie above 0 and up to 1, got inf",
    ),
    "nothing to rank": (["--candidates", "0"], r"1 <= k <= candidates, got k=3 and candidates=0"),
    "text of no length": (["--max-length", "0"], r"max_length must be a whole number of at least 1, got 0"),
    "fewer than no negatives": (["--random-negatives", "-1"], r"random_negatives must be at least 0, got -1"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_options_that_lie(name, files):
    options, message = BAD_OPTIONS[name]
    filled = [one.format(folder=files.folder, corpus=files.corpus) for one in options]
    check_command(files.compile(*filled), message)


def test_a_program_that_is_none(files):
    for folder in (files.folder, files.folder / "nowhere", files.corpus):
        where = r"manifest\.json: no such file; .* is not a folder that radio_dspy\.save wrote"
        check_command(["evaluate", folder, *files.evaluate()[2:]], where)
        check_command(["export", folder, "--out", files.folder / "exported"], where)
    check_command(["runs", "show", files.folder], "not a run folder")
    check_command(["runs", "show", files.corpus], "is a file")
    check_command(["runs", "resume", files.folder], "not a run folder")


BAD_RATIONALES = {
    "no id": (
        [{"rationale": "heat"}],
        r"rationales\.jsonl:1: needs 'id' and a string 'rationale', got \['rationale'\]",
    ),
    "an id that is none": ([{"id": None, "rationale": "x"}], r"rationales\.jsonl:1: 'id': needs a string or a number"),
    "an id that is a list": ([{"id": [], "rationale": "x"}], r"rationales\.jsonl:1: 'id': needs a string or a number"),
    "an empty id": ([{"id": "", "rationale": "x"}], r"rationales\.jsonl:1: holds a rationale of ''"),
    "no text": ([{"id": "q1", "rationale": 5}], r"rationales\.jsonl:1: needs 'id' and a string 'rationale'"),
    "another's": (
        [{"id": "q1", "rationale": "x"}, {"id": "zz", "rationale": "x"}],
        r"rationales\.jsonl:2: holds .*'zz'",
    ),
    "half a character": (
        [{"id": "q1", "rationale": "\ud800"}],
        r"rationales\.jsonl:1: 'rationale': contains an unpaired",
    ),
}


@pytest.mark.parametrize("name", BAD_RATIONALES)
def test_rationales_that_lie(name, files):
    rows, message = BAD_RATIONALES[name]
    check_command(files.compile("--rationales", files.write("rationales", rows)), message)


def test_nasty_text_goes_all_the_way(files):
    """Corpus, questions and rationales of the nastiest characters that are text."""
    texts_to_keep = [text for text in NASTY_TEXTS.values() if text.strip() and not re.search("[\ud800-\udfff]", text)]
    corpus = [{"id": f"{i}\x00{text}", "contents": f"{text} {FACTS[i % 6]}"} for i, text in enumerate(texts_to_keep)]
    rows = [
        {"id": f"{i}{text}", "question": f"{text} {ASKED[i % 4][0]}", "golden_answers": [ASKED[i % 4][1]]}
        for i, text in enumerate(texts_to_keep)
    ]
    files.corpus, files.train, files.dev = (
        files.write(name, some) for name, some in (("c", corpus), ("t", rows[:6]), ("d", rows[6:]))
    )
    rationales = files.write("r", [{"id": rows[0]["id"], "rationale": f"{texts_to_keep[3]} is light"}])
    assert f"{len(corpus)} passages indexed" in check_command(files.index()).output
    report = files.folder / "report.json"
    check_command(files.compile("--rationales", rationales, "--json", report))
    told = json.loads(report.read_text(encoding="utf-8"))
    assert told["rationales"]["given"] == 1
    assert told["questions"]["used"] + sum(told["questions"]["skipped"].values()) == told["questions"]["train"] == 6
    check_command(files.evaluate("--json", report))
    metrics = json.loads(report.read_text(encoding="utf-8"))["metrics"]
    assert all(0 <= value <= 1 for row in metrics.values() for value in row.values())


def try_command_line(files, count):
    data = st.one_of(files_of(corpus_rows["FlashRAG"]), files_of(question_fields))

    @thorough(count)
    @given(data, data)
    def each(corpus, train):
        bad = [files.write("bad-corpus", corpus), files.write("bad-train", train)]
        for arguments in (files.index(bad[0]), files.compile("--estimate", "--corpus", bad[0], train=bad[1])):
            done = CliRunner().invoke(app, [str(one) for one in arguments])
            if isinstance(done.exception, Exception):
                raise done.exception
            INPUTS["refused" if done.exit_code else "taken"] += 1
            assert done.exit_code in (0, 1, 2)
            assert done.exit_code == 0 or re.search(
                r"error: (\S+/bad-\w+\.jsonl|Question '|trainset|Give|The)", done.stderr
            )

    each()


def test_the_command_line(files):
    try_command_line(files, 10)


@pytest.mark.slow
def test_the_command_line_with_many_files(files):
    try_command_line(files, 200)


# What was wrong


def test_a_bad_byte_is_named_by_its_own_line(tmp_path):
    """A strict decoder fails on the block that it reads ahead: every bad byte of a small file was line 1's."""
    path = written(tmp_path, b'{"id": "1", "contents": "a"}\n\n{"id": "2", "contents": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"input\.jsonl:3: not UTF-8 text"):
        radio.load_corpus(path)
    path = written(tmp_path, b"q1\tp1\t1\nq1\tp\xff\t1\n", "qrels.tsv")
    with pytest.raises(DataError, match=r"qrels\.tsv:2: not UTF-8 text"):
        radio.load_questions([{"id": "q1", "question": "Why?"}], qrels=path)


def test_an_answer_that_is_not_a_number_is_not_the_word_nan():
    """A table's missing answer became an answer: ``nan``."""
    rows = [{"id": "q1", "question": "Why?", "answers": [math.nan, "ice"]}]
    assert [one.answers for one in radio.load_questions(rows)] == [["ice"]]


def test_bytes_are_no_list_of_answers():
    """They became one answer for each byte: ``97`` and ``98``."""
    with pytest.raises(DataError, match=r"row 1: 'answers' must be a list of strings, got b'ab' in it"):
        radio.load_questions([{"id": "q1", "question": "Why?", "answers": b"ab"}])


def test_a_title_that_is_an_object_is_no_title():
    with pytest.raises(DataError, match=r"row 1: 'title': needs a string or a number, got \{'a': 1\}"):
        radio.load_corpus([{"id": "p1", "title": {"a": 1}, "text": "ice"}])


def test_choices_of_a_numpy_dataset_are_read():
    """Whether there are any was asked of the array itself, which does not say."""
    rows = [{"id": "q1", "question": "Why?", "answers": ["A"], "choices": np.array(["heat", "ice"])}]
    assert radio.load_questions(rows)[0].choices == ["heat", "ice"]


def test_a_number_of_any_length_is_named():
    """Python does not write more than 4,300 digits: the message about such a number was an error of its own."""
    with pytest.raises(DataError, match="row 1: needs an 'id'"):
        radio.load_corpus([{"id": 10**5000, "contents": "ice"}])
    with pytest.raises(DataError, match="The score at position 0 is int of more digits"):
        min_max([10**5000])


@pytest.mark.parametrize("line", ["q1\tp1\t2,5", "q1\tp1"])
def test_a_bad_first_judgement_is_no_heading(line, tmp_path):
    """It was passed over as one, and with it the label."""
    path = written(tmp_path, line.encode(), "qrels.tsv")
    with pytest.raises(DataError, match=r"qrels\.tsv:1: expected query id, passage id and a grade"):
        radio.load_questions([{"id": "q1", "question": "Why?"}], qrels=path)


def test_a_score_too_large_for_a_float_is_named_by_its_line():
    row = {"query": "why?", "pos": ["yeast"], "neg": ["ice"], "pos_scores": [10**400], "neg_scores": [1]}
    with pytest.raises(DataError, match=r"row 1: 'pos_scores' must hold finite numbers"):
        radio.load_groups([row])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive": ["a"]}, "'positive' must hold strings"),
        ({"negatives": 5}, "needs a list of strings 'negatives', got 5"),
        ({"negatives": "ab"}, "needs a list of strings 'negatives', got 'ab'"),
        ({"scores": 5}, "'scores' must be a list of numbers, got 5"),
    ],
)
def test_kept_groups_of_another_shape_are_named_by_their_line(change, message):
    row = {"query": "why?", "positive": "a", "negatives": ["b"], **change}
    with pytest.raises(DataError, match=f"row 1: {message}"):
        radio.load_groups([row], [Passage("a", "yeast"), Passage("b", "ice")])


@pytest.mark.parametrize(
    "change", [{"query": "why \ud800"}, {"pos": ["\udfff"]}, {"prompt": "\ud800"}, {"id": "\ud800"}]
)
def test_half_a_character_in_a_group_is_found_when_it_is_loaded(change):
    """A tokenizer found it in the middle of training."""
    with pytest.raises(DataError, match=r"row 1: '\w+': contains an unpaired"):
        radio.load_groups([{"query": "why?", "pos": ["yeast"], "neg": ["ice"], **change}])


def test_a_generator_of_passages_is_a_corpus(small):
    """The checks used it up: the index was empty, and nobody said so."""
    assert len(radio.FaissRetriever.build((Passage(one, one) for one in "abc"), small)) == 3


@pytest.mark.parametrize("passage", [Passage("", "ice"), Passage("p1", " "), Passage("\ud800", "ice")], ids=repr)
def test_what_could_not_be_saved_and_loaded_again_is_not_built(passage, small):
    with pytest.raises(DataError, match=r"^Passage "):
        radio.FaissRetriever.build([passage], small)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3", None])
def test_search_checks_k_before_faiss_does(k, trio):
    with pytest.raises(SettingsError, match="k must be at least 1, got"):
        trio.search(["why?"], k)


@pytest.mark.parametrize("queries", ["why?", None, 5])
def test_one_string_is_no_list_of_queries(queries, trio):
    """It was searched for letter by letter."""
    with pytest.raises(DataError, match="Queries must be a list of strings"):
        trio.search(queries, 1)


def test_a_table_is_no_list_of_passages(rerankers):
    pandas = pytest.importorskip("pandas")
    for table in (pandas.DataFrame({"text": ["ice"]}), pandas.Series(["ice"], index=[5])):
        with pytest.raises(DataError, match=r"Passages must be a list, and \w+ gives none at position 0"):
            rerankers["bi-encoder"]("why?", table)


def test_answers_that_are_one_string_are_one_answer(small):
    """The guide was their letters, one by one."""
    teacher = radio.RationaleRerank(small)
    passages = ["Yeast dies of heat.", "Ice floats."]
    assert teacher("why?", "heat", "", passages).scores == teacher("why?", ["heat"], "", passages).scores
    for answers in (None, 5):
        with pytest.raises(DataError, match="The answers must be a list of strings"):
            teacher("why?", answers, "", passages)


@pytest.mark.parametrize("falsy", [0, None, (), False])
def test_an_id_that_counts_as_nothing_is_still_no_string(falsy):
    """It was looked for, found, and taken for none."""
    with pytest.raises(DataError, match="at position 0; passage ids are strings"):
        preference_groups([falsy, "b", "c"])


@pytest.mark.parametrize("change", [{"depth": 2.5}, {"depth": "3"}, {"block": math.nan}, {"negative_range": 5}])
def test_positions_that_are_no_whole_numbers(change):
    with pytest.raises(SettingsError, match=r"(depth and block|negative_range) must be"):
        preference_groups(["a", "b", "c"], "iteration", **change)


def test_signals_that_are_not_named_by_strings():
    with pytest.raises(DataError, match="A signal is named 1; names are strings"):
        fuse({1: [1.0], "a": [2.0]}, {1: 1, "a": 1})


@pytest.mark.parametrize("weight", [10**400, math.inf, math.nan, None, "1"])
def test_weights_that_are_no_finite_numbers(weight):
    with pytest.raises(DataError, match="The weight of signal 'a' is"):
        fuse({"a": [1.0]}, {"a": weight})


def test_weights_whose_sum_is_no_number():
    with pytest.raises(DataError, match="Fused by weights whose sum is too large: The score at position 1 is inf"):
        fuse({"a": [0.0, 1.0], "b": [0.0, 1.0]}, {"a": 1.7e308, "b": 1.7e308})


def test_ids_that_differ_after_a_nul_are_two_ids():
    """trec_eval ends an id there: every metric of such a question was 0."""
    assert ranking_metrics([["a\x00b", "a"]], [["a"]], ("mrr",)) == {"mrr": [0.5]}


def test_an_id_that_is_0_is_an_id():
    """It counted as missing, and the question's rationale as one of an unknown question."""
    assert question_id(dspy.Example(id=0, question="why?")) == "0"
    assert question_id(dspy.Example(id=None, question="why?")) == question_id(dspy.Example(question="why?"))


@pytest.mark.parametrize("key", [math.nan, math.inf, True, 10**400])
def test_an_id_that_is_no_number_is_no_id(key):
    with pytest.raises(DataError, match=r"Question 'why\?', id: needs a string or a number"):
        question_id(dspy.Example(id=key, question="why?"))


@pytest.mark.parametrize("examples_given", [5, "why?", {"question": "why?"}, None, []], ids=repr)
def test_a_trainset_that_is_none(examples_given, pantry):
    student = radio.RetrieveRerankAnswer(pantry, radio.Rerank(pantry.encoder, "bi-encoder"), candidates=6, k=3)
    with pytest.raises(DataError, match=r"trainset (must be a list of dspy\.Example, got|is empty)"):
        radio_of(False).estimate(student, trainset=examples_given)


def test_a_trainset_that_can_be_gone_through_only_once(pantry):
    """The checks used it up: no question reached a reranker, and the LM was blamed."""
    student = radio.RetrieveRerankAnswer(pantry, radio.Rerank(pantry.encoder, "bi-encoder"), candidates=6, k=3)
    bills = [
        radio_of(dspy.LM("openai/gpt-4o-mini"), gate=False).estimate(student, trainset=train, valset=held_out)
        for train, held_out in ((examples()[:3], examples()[3:]), (iter(examples()[:3]), iter(examples()[3:])))
    ]
    assert bills[0].calls == bills[1].calls == 3


@pytest.mark.parametrize("seed", [2**80, -(10**400), 1.5, True])
def test_a_seed_that_torch_would_refuse(seed):
    with pytest.raises(SettingsError, match="seed must be a whole number between"):
        radio_of(False, seed=seed)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "temperature", "target_temperature"])
@pytest.mark.parametrize("value", ["x", None, True])
def test_settings_that_are_no_numbers(name, value):
    if value is None and name == "learning_rate":
        pytest.skip("None is the default of RADIO's own argument")
    with pytest.raises(SettingsError, match=f"{name} must be a number, got"):
        radio_of(False, **{name: value})


def test_an_index_is_not_saved_onto_a_file(pantry, tmp_path):
    (tmp_path / "index").write_text("mine")
    with pytest.raises(SettingsError, match="index: is a file; an index is saved into a folder"):
        pantry.save(tmp_path / "index")
    assert (tmp_path / "index").read_text() == "mine"


def test_runs_are_not_looked_for_in_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    done = CliRunner().invoke(app, ["runs", "list", str(tmp_path / "runs")])
    assert (done.exit_code, "runs: is a file; give the folder" in " ".join(done.output.split())) == (1, True)


def test_evaluate_refuses_labels_of_another_corpus(pantry, tmp_path):
    """Every metric of such a question was too low, and nothing said so."""
    pantry.save(tmp_path / "index")
    radio.save(radio.RetrieveRerankAnswer(pantry, radio.Rerank(pantry.encoder, "bi-encoder")), tmp_path / "saved")
    question = {"id": "q0", "question": "why?", "golden_answers": ["so"], "metadata": {"supporting_ids": ["p99"]}}
    (tmp_path / "dev.jsonl").write_text(json.dumps(question))
    command = ["evaluate", str(tmp_path / "saved"), "--index", str(tmp_path / "index"), "--encoder"]
    done = CliRunner().invoke(app, [*command, pantry.encoder.name, "--questions", str(tmp_path / "dev.jsonl")])
    assert done.exit_code == 1
    assert "Question 'q0': relevant passage 'p99' is not in the corpus" in " ".join(done.output.split())


@pytest.mark.parametrize("title", [np.array(["x", "y"]), [], False, {}], ids=["array", "list", "false", "dict"])
def test_a_title_that_is_no_text(title):
    """An array has no truth value to ask for, and an empty list was taken for no title."""
    with pytest.raises(DataError, match="Passage 0, title: needs a string or a number"):
        as_passage({"text": "ice", "title": title})
    assert as_passage({"text": "ice", "title": None}).title == as_passage({"text": "ice"}).title == ""
