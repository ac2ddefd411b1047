"""Shapes of data from the named ecosystems: read rightly, or refused with what to rename."""

import bz2
import json
import lzma
import sqlite3
from collections import namedtuple
from decimal import Decimal
from types import SimpleNamespace

import dspy
import numpy as np
import pytest
from typer.testing import CliRunner

from radio_dspy import load_corpus, load_questions
from radio_dspy.cli.app import app
from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import Passage, as_passages, content_id
from radio_dspy.datasets.examples import answer_texts, answers_of, check_judgeable, check_labels, letters_of
from radio_dspy.datasets.shapes import first_of, options_of
from radio_dspy.retrievers.requests import question_id

ASKED = {"id": "q1", "question": "What stops the yeast?"}
OPTIONS = ["frost", "boiling", "brine"]


def file_of(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ({"_id": "1", "title": "Tides of the moon", "text": ""}, Passage("1", "Tides of the moon")),
        ({"_id": "1", "title": "Tides", "text": None}, Passage("1", "Tides")),
        ({"id": 1, "title": float("nan"), "text": "They rise."}, Passage("1", "They rise.")),
        ({"id": 1.0, "text": "They rise."}, Passage("1", "They rise.")),
        ({"id": np.int64(1), "text": "They rise."}, Passage("1", "They rise.")),
        (
            {"docid": "1", "title": "Tides", "body": "They rise.", "url": "http://x"},
            Passage("1", "They rise.", "Tides"),
        ),
        ({"pid": 1, "passage": "They rise."}, Passage("1", "They rise.")),
        ({"id": "1", "title": "Tides", "text": "\u200b\ufeff\u2060"}, Passage("1", "Tides")),
        (
            {"page_url": "1", "page_name": "Tides", "page_snippet": "They rise.", "page_result": "<p>"},
            Passage("1", "They rise.", "Tides"),
        ),
        ({"id": "1", "contents": "Tides\r\nThey rise."}, Passage("1", "They rise.", "Tides")),
        ({"page_content": "They rise.", "metadata": {"id": "1", "title": "T"}}, Passage("1", "They rise.", "T")),
        ({"id": "1", "content": "They rise.", "meta": {"title": "T"}}, Passage("1", "They rise.", "T")),
        (SimpleNamespace(id="1", page_content="They rise.", metadata={}), Passage("1", "They rise.")),
        (SimpleNamespace(id="1", content="They rise.", meta={"title": "T"}), Passage("1", "They rise.", "T")),
        (SimpleNamespace(id_="1", text="They rise.", metadata={}), Passage("1", "They rise.")),
    ],
    ids=str,
)
def test_shapes_of_passages(row, passage):
    assert [(one.id, one.text, one.title) for one in load_corpus([row])] == [(passage.id, passage.text, passage.title)]


def test_rows_without_text_are_left_out_with_one_warning(caplog):
    rows = [{"_id": f"p{i}", "title": "", "text": "salt" if i % 3 == 0 else " "} for i in range(7)]
    assert [one.id for one in load_corpus([*rows, rows[0]])] == ["p0", "p3", "p6"]
    (told,) = caplog.messages
    assert "left out 5 of 8 passages, the first of them 'p1'" in told
    with pytest.raises(DataError, match="row 1: 'text' is empty"):
        load_corpus(rows[1:3])
    with pytest.raises(DataError, match=r"row 1: needs 'contents'"):
        load_corpus([{"id": "1", "abstract": "salt"}])
    with pytest.raises(DataError, match="row 2: id 'a' was already used at row 1"):
        load_corpus([{"id": "a", "text": "salt"}, {"id": "a", "text": "ice"}])


def test_labels_of_passages_that_were_left_out_do_no_harm(caplog):
    examples = [
        dspy.Example(id="a", question="Why?", relevant=["p0", "gone"]).with_inputs("question"),
        dspy.Example(id="b", question="How?", relevant=["gone"]).with_inputs("question"),
    ]
    found = check_labels(examples, {"p0"})
    assert [one.relevant for one in found] == [["p0"], []]
    assert examples[0].relevant == ["p0", "gone"]
    assert list(found[0].inputs().keys()) == ["question"]
    assert "left out 2 labels of 2 questions" in caplog.text
    with pytest.raises(DataError, match="Question 'b': relevant passage 'gone' is not in the corpus"):
        check_labels(examples[1:], {"p0"})


@pytest.mark.parametrize(
    ("name", "text", "grades"),
    [
        ("a.trec", "q1 Q0 d1 3\nq1 Q0 d2 -2\n", {"d1": 3, "d2": -2}),
        ("a.trec", "q1\t0\td1\t1\r\n\r\nq1  0   d2  0.5 \r\n", {"d1": 1, "d2": 0.5}),
        ("a.tsv", "\ufeffquery-id corpus-id score\nq1 d1 2.0\n", {"d1": 2}),
        ("a.tsv", "q1\td 1\t1\n", {"d 1": 1}),
        ("a.jsonl", '{"query-id": "q1", "corpus-id": "d1", "score": 1}\n', {"d1": 1}),
    ],
)
def test_shapes_of_judgements(name, text, grades, tmp_path):
    (one,) = load_questions([ASKED], qrels=file_of(tmp_path / name, text))
    assert one.grades == grades
    assert one.relevant == [key for key, grade in grades.items() if grade > 0]
    assert load_questions([ASKED], qrels={"q1": grades})[0].grades == grades


@pytest.mark.parametrize(
    "qrels",
    [
        [{"query-id": "q1", "corpus-id": "7", "score": 1}],
        [{"query_id": "q1", "doc_id": 7, "relevance": 1.0, "iteration": "0"}],
        [{"query-id": "q1", "corpus-id": 7.0}],
        [namedtuple("TrecQrel", "query_id doc_id relevance")("q1", "7", 1)],
        {"q1": ["7"]},
        {"q1": {7}},
        {"q1": {7.0: 1}},
    ],
    ids=str,
)
def test_judgements_in_memory(qrels):
    """Rows of Hugging Face and ir_datasets; what sentence-transformers' evaluator and LlamaIndex take."""
    (one,) = load_questions([ASKED], qrels=qrels)
    assert (one.grades, one.relevant) == ({"7": 1}, ["7"])


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ([{"query-id": "q1", "score": 1}], "qrels, row 1: expected 'query-id', 'corpus-id' and 'score'"),
        ([{"query-id": "q1", "corpus-id": "7", "score": None}], "qrels, row 1: the grade must be a number, got None"),
        ({"q1": "7"}, "qrels of 'q1': needs a grade for each passage id, got '7'"),
        ({"q1": [["7"]]}, "qrels of 'q1': needs a string or a number"),
        (7, "qrels: needs a file, rows, or a mapping of grades, got int"),
    ],
)
def test_judgements_in_memory_that_are_none(qrels, message):
    with pytest.raises(DataError, match=message):
        load_questions([ASKED], qrels=qrels)


def test_judgements_of_other_questions_are_counted(tmp_path, caplog):
    path = file_of(tmp_path / "a.qrels", "q1 0 d1 1\nq7 0 d1 1\nq7 0 d2 1\nq8 0 d1 0\n")
    assert load_questions([ASKED], qrels=path)[0].relevant == ["d1"]
    assert "left out 3 judgements of 2 questions" in caplog.text
    with pytest.raises(DataError, match="judges question 'q7'"):
        load_questions([ASKED], qrels=file_of(path, "q7 0 d1 1"))
    for bad in ("q1 0 d1 high\nq1 0 d2 x", "q1 0 d1 nan", "q1 d1", "q1 0 0 d1 1"):
        with pytest.raises(DataError, match=r"a\.qrels:\d: expected query id, passage id and a grade"):
            load_questions([ASKED], qrels=file_of(path, "q1 0 d0 1\n" + bad))


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        ({"answer": "boiling"}, ["boiling"]),
        ({"answer": ["boiling", "heat"]}, ["boiling", "heat"]),
        ({"golden_answers": [], "answer": "boiling"}, ["boiling"]),
        ({"answers": {"text": ["boiling", "heat"], "answer_start": [3, 9]}}, ["boiling", "heat"]),
        ({"answers": {"text": [], "answer_start": []}}, []),
        ({"answer": {"value": "boiling", "aliases": ["heat"], "normalized_value": "x"}}, ["boiling", "heat"]),
        ({"answer": "boiling", "answer_aliases": ["heat"]}, ["boiling", "heat"]),
        ({"possible_answers": '["boiling", "heat"]'}, ["boiling", "heat"]),
        ({"golden_answers": '["boiling"]'}, ["boiling"]),
        ({"answer": "[sic] boiling"}, ["[sic] boiling"]),
        ({"final_decision": "maybe", "long_answer": "It depends."}, ["maybe"]),
        ({"answer": 1912}, ["1912"]),
        ({"answer": 1912.0}, ["1912"]),
        ({"answer": True}, ["yes", "true"]),
        ({"golden_answers": [False]}, ["no", "false"]),
        ({"answers": [None, "boiling", float("nan")]}, ["boiling"]),
        ({"answers": [{"text": "boiling", "aliases": ["heat"]}, {"text": "fire"}]}, ["boiling", "heat", "fire"]),
        ({"answers": '{"text": ["boiling"], "answer_start": [3]}'}, ["boiling"]),
        ({"answer": '{"heat": 1}'}, ['{"heat": 1}']),
        ({"correct_answers": ["boiling", "heat"], "incorrect_answers": ["ice"]}, ["boiling", "heat"]),
        ({"answer": "boiling", "alt_ans": ["heat"]}, ["boiling", "heat"]),
        ({"user_input": "Why?", "reference": "boiling"}, ["boiling"]),
        ({"passage": "It boils.", "label": True}, ["yes", "true"]),
        ({"passage": "It boils.", "label": "False"}, ["no", "false"]),
        ({"label": 1}, []),
        (
            {"answers": {"de": [{"text": "Sieden", "aliases": []}], "en": [{"text": "boiling", "aliases": ["heat"]}]}},
            ["boiling", "heat"],
        ),
        ({"answers": {"en": [{"type": "unanswerable", "text": None}], "de": []}}, []),
        (
            {"annotations": {"short_answers": [{"text": ["boiling"]}, {"text": []}], "yes_no_answer": [-1, 1]}},
            ["boiling", "yes"],
        ),
        ({"annotations": [{"short_answers": [], "yes_no_answer": "NO"}]}, ["no"]),
        ({"reference": "Smith, 2010"}, []),
        ({"answers": np.array(["boiling", None], dtype=object)}, ["boiling"]),
        ({"answers": ["No Answer Present."]}, []),
        ({"answer": {"value": "<unk>", "aliases": []}}, []),
        ({"gold_answer": "N/A"}, []),
        ({"answer": None}, []),
        ({"answer": float("nan")}, []),
    ],
    ids=str,
)
def test_shapes_of_answers(fields, answers):
    assert load_questions([{**ASKED, **fields}])[0].answers == answers
    assert list(answers_of(dspy.Example(**ASKED, **fields))) == answers


@pytest.mark.parametrize("answers", ["{'text': array(['heat'], dtype=object), 'answer_start': [1]}", "['heat' 'ice']"])
def test_what_a_table_made_of_a_list_is_refused(answers):
    for fields in ({"answers": answers}, {"choices": answers, "answer": 0}):
        with pytest.raises(DataError, match="is the text of a list that is not JSON"):
            load_questions([{**ASKED, **fields}])


def test_answers_in_lists_of_lists_are_refused():
    with pytest.raises(DataError, match=r"must be a list of strings, got \['a', 'b'\] in it"):
        load_questions([{**ASKED, "answers": [["a", "b"], ["c"]]}])


@pytest.mark.parametrize("name", ["annotations", "correct", "nq_answer"])
def test_further_names_of_answers_are_told(name, caplog):
    load_questions([{**ASKED, name: ["boiling"]}])
    assert f"Not read as answers: {name!r}" in caplog.text


def test_questions_of_other_libraries():
    rows = [
        {"id": 1, "user_input": "Why?", "reference": "heat", "reference_contexts": ["c"], "synthesizer_name": "s"},
        {"id": 2, "question": "How?", "ground_truth": "heat", "metadata": [{"source": "a.md"}]},
        {"id": 3, "query": "Who?", "gold_ids": ["d1"], "gold_ids_long": ["l1"], "gold_answer": "N/A"},
        {"query_id": 4, "query": "When?", "positive_passages": [{"docid": "d1", "text": "t"}, {"text": "no id"}]},
    ]
    found = load_questions(rows)
    assert [(one.answers, one.relevant) for one in found] == [
        (["heat"], []),
        (["heat"], []),
        ([], ["d1"]),
        ([], ["d1"]),
    ]
    assert found[1].metadata == {"metadata": [{"source": "a.md"}]}


def test_answers_that_are_not_read_are_told(caplog):
    assert load_questions([{**ASKED, "gold_label_text": "boiling"}])[0].answers == []
    assert "Not read as answers: 'gold_label_text'; rename it to 'answers'" in caplog.text
    with pytest.raises(DataError, match="text of a list that is not JSON"):
        load_questions([{**ASKED, "answers": "['boiling', 'heat']"}])
    with pytest.raises(DataError, match="nothing to judge: none of 1 questions has answers"):
        check_judgeable(load_questions([ASKED]), "dev.jsonl")


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": OPTIONS, "answer": 1},
        {"choices": OPTIONS, "golden_answers": ["2"]},
        {"choices": OPTIONS, "golden_answers": ["Boiling"]},
        {"choices": OPTIONS, "answer": "b"},
        {"choices": {"text": OPTIONS, "label": ["A", "B", "C"]}, "answerKey": "B"},
        {"choices": {"text": OPTIONS, "label": ["1", "2", "3"]}, "answerKey": "2"},
        {"choices": [{"text": one, "label": key} for one, key in zip(OPTIONS, "PQR", strict=True)], "answerKey": "Q"},
        {"options": dict(zip("ABC", OPTIONS, strict=True)), "answer": "boiling", "answer_idx": "B"},
        {"options": OPTIONS, "answer": "B", "answer_index": 1},
        {"A": "frost", "B": "boiling", "C": "brine", "answer": "B"},
        {"opa": "frost", "opb": "boiling", "opc": "brine", "cop": 1},
        {"choices": np.array(OPTIONS), "answer": np.int64(1)},
        {"options": [{"key": key, "value": one} for key, one in zip("ABC", OPTIONS, strict=True)], "answer_idx": "B"},
        {"choices": OPTIONS, "label": 1},
        {"answerA": "frost", "answerB": "boiling", "answerC": "brine", "label": "2"},
        {"ending0": "frost", "ending1": "boiling", "ending2": "brine", "label": 1},
    ],
    ids=str,
)
def test_shapes_of_options(fields):
    (one,) = load_questions([{**ASKED, **fields}])
    assert (one.choices, one.answers, letters_of(one), answer_texts(one)) == (OPTIONS, ["B"], ("B",), ("boiling",))


def test_options_of_two_and_wrong_ones_beside_the_right_one():
    (piqa,) = load_questions([{"goal": "Stop the yeast", "sol1": "frost it", "sol2": "boil it", "label": 1}])
    assert (piqa.question, piqa.choices, piqa.answers) == ("Stop the yeast", ["frost it", "boil it"], ["B"])
    sciq = {"question": "What stops it?", "distractor1": "ice", "distractor2": "air", "correct_answer": "boiling"}
    assert load_questions([sciq])[0].toDict() | {"id": ""} == {
        "id": "", "question": "What stops it?", "answers": ["B"], "answer": "B", "relevant": [], "metadata": {},
        "choices": ["air", "boiling", "ice"],
    }  # fmt: skip


def test_the_answers_are_in_the_language_of_the_question():
    answers = {name: [{"text": text}] for name, text in (("en", "boiling"), ("de", "Sieden"))}
    row = {"example_id": 7, "queries": {"en": "What?", "de": "Was?"}, "answers": answers}
    for query, found in (({}, ["boiling"]), ({"query": "What?"}, ["boiling"]), ({"query": "Was?"}, ["Sieden"])):
        assert load_questions([{**row, **query}])[0].answers == found
    with pytest.raises(DataError, match="has answers in fr, de; give those in the question's language"):
        load_questions([{**row, "answers": {"fr": [], "de": []}, "query": "What?"}])


def test_rows_without_an_id_get_one_from_their_text():
    rows = [{"question": "Which is true?", "choices": list(pair), "answer": 0} for pair in ("pq", "rs", "pq")]
    one, other = load_questions(rows)
    assert one.id != other.id == load_questions(rows[1:2])[0].id
    assert load_questions([{"question": "Why?"}])[0].id == question_id(dspy.Example(question="Why?"))
    with pytest.raises(DataError, match="row 1: needs an 'id'"):
        load_questions([{"question": "Why?", "id": None}])


@pytest.mark.parametrize("options", [["boiling", "frost", "brine"], ["frost", "boiling"], None])
def test_a_further_line_with_other_options_is_refused(options):
    rows = [{**ASKED, "choices": OPTIONS, "answer": 1}, {**ASKED, "choices": options, "answer": 0}]
    with pytest.raises(DataError, match="row 2: question 'q1' has other options than at row 1"):
        load_questions(rows)


@pytest.mark.parametrize("hidden", [-1, "", None])
def test_a_test_split_hides_the_right_option(hidden):
    (one,) = load_questions([{**ASKED, "opa": "frost", "opb": "boiling", "cop": hidden}])
    assert (one.answers, one.choices) == ([], ["frost", "boiling"])


def test_an_option_may_say_what_stands_for_no_answer_elsewhere():
    assert load_questions([{**ASKED, "choices": ["yes", "N/A"], "answer": "N/A"}])[0].answers == ["B"]
    assert load_questions([{**ASKED, "choices": ["yes", "no"], "answer": False}])[0].answers == ["B", "false"]
    assert load_questions([{**ASKED, "choices": ["1", "-1"], "answer": -1}])[0].answers == ["B"]


def test_options_in_one_text():
    assert load_questions([{**ASKED, "choices": '["frost", "boiling"]', "answer": 1}])[0].answers == ["B"]
    assert (
        load_questions([{**ASKED, "options": '{"A": "frost", "B": "boiling"}', "answer": "B"}])[0].choices[1]
        == "boiling"
    )
    with pytest.raises(DataError, match=r"'options' is one text, .*; give a list of options"):
        load_questions([{**ASKED, "options": "a ) 38 , b ) 27", "correct": "a"}])


def test_numbers_as_options_are_told_from_labels():
    labelled = {"text": ["3", "1", "2"], "label": ["1", "2", "3"]}
    assert load_questions([{**ASKED, "choices": labelled, "answerKey": "2"}])[0].answers == ["B"]
    assert load_questions([{**ASKED, "choices": ["3", "1", "2"], "answer": "2"}])[0].answers == ["C"]
    assert load_questions([{**ASKED, "choices": ["3", "1", "2"], "answer": 2}])[0].answers == ["C"]
    arc = {"id": "q1", "question": {"stem": "Why?", "choices": [{"text": "a", "label": "A"}]}, "answerKey": "A"}
    assert load_questions([arc])[0].question == "Why?"
    for gold in (7, "7", "warmth"):
        with pytest.raises(DataError, match=r"question 'q1': the gold answer .* is neither a letter"):
            load_questions([{**ASKED, "choices": OPTIONS, "answer": gold}])


def test_tables_and_arrays(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"id": [1, None], "question": ["Why?", None], "answer": ["salt", None]})
    assert load_questions(table.head(1))[0].toDict()["id"] == "1"
    rows = [{"qid": 4, "query": "Why?", "answer": "salt", "subject": "virology"}]
    (one,) = load_questions(file_of(tmp_path / "q.json", json.dumps(rows, indent=2)))
    assert (one.id, one.answers, one.metadata) == ("4", ["salt"], {"subject": "virology"})
    with pytest.raises(DataError, match=r"t\.tsv:1: not JSON .*; read a table with pandas"):
        load_corpus(file_of(tmp_path / "t.tsv", "id\ttext\n1\tsalt\n"))
    with pytest.raises(DataError, match=r"q\.json:4: not JSON"):
        load_corpus(file_of(tmp_path / "q.json", '[\n {"id": 1},\n {"id":\n'))


def test_evaluate_with_nothing_to_judge_is_an_error(tmp_path):
    """It printed 0.000 over 0 questions and ended with 0."""
    questions = file_of(tmp_path / "dev.jsonl", json.dumps(ASKED))
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--corpus", "c.jsonl", "--questions", str(questions)])
    assert (done.exit_code, "nothing to judge" in " ".join(done.output.split())) == (1, True)


def test_documents_that_a_retriever_returns():
    document = SimpleNamespace(id="1", page_content="They rise.", metadata={})
    assert as_passages([document, {"content": "They fall."}]) == [
        Passage("1", "They rise."),
        Passage(content_id("They fall."), "They fall."),
    ]


def test_a_question_without_words_is_left_out(caplog):
    assert len(load_questions([ASKED, {"id": "q2", "question": None}, {"id": "q3", "question": " "}])) == 1
    assert "left out 2 of 3 questions, the first of them 'q2'" in caplog.text


def test_an_array_is_the_whole_file(tmp_path):
    rows = file_of(tmp_path / "q.jsonl", json.dumps(ASKED) + "\n[]\n")
    with pytest.raises(DataError, match=r"q\.jsonl:2: expected a JSON object, got list"):
        load_questions(rows)


@pytest.mark.parametrize("empty", [None, "", [], {}, (), float("nan"), np.array([])])
def test_a_field_without_anything_gives_way_to_the_next_name(empty):
    assert first_of({"choices": empty, "options": ["a"]}, ("choices", "options")) == "options"


@pytest.mark.parametrize("filled", [np.array(["x", "y"]), np.array(3), np.array(["x"]), 0, False, {"A": "x"}])
def test_numpys_values_are_values_like_others(filled):
    assert first_of({"choices": filled, "options": ["a"]}, ("choices", "options")) == "choices"


def test_an_examples_options_may_be_an_array():
    assert options_of("row", dspy.Example(choices=np.array(["x", "y"]))) == (["x", "y"], [])


def database():
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    return connection.execute("select 1 as id, 'salt' as text")


class Polars:
    """Its ``to_dict`` takes no name of a form, and it iterates over columns."""

    columns = ("id", "text")

    def to_dict(self, *, as_series=True):
        raise AssertionError

    def to_dicts(self):
        return [{"id": 1, "text": "salt"}]


def arrow():
    return pytest.importorskip("pyarrow").table({"id": [1], "text": ["salt"]})


@pytest.mark.parametrize(
    "source",
    [
        lambda: {"1": {"title": "", "text": "salt"}},
        lambda: {1: "salt"},
        lambda: [dspy.Example(id="1", text="salt").with_inputs("text")],
        lambda: [namedtuple("GenericDoc", "doc_id text")("1", "salt")],
        lambda: [{"_index": "i", "_id": "1", "_score": 1.0, "_source": {"text": "salt"}}],
        lambda: [
            SimpleNamespace(id="0", content=None, meta={"image": "x"}),
            SimpleNamespace(id="1", content="salt", meta={}),
        ],
        database,
        Polars,
        arrow,
    ],
)
def test_sources_of_rows(source):
    assert load_corpus(source()) == [Passage("1", "salt")]


def test_a_single_row_is_no_mapping_of_rows():
    for row in ({"id": "1", "text": "salt"}, {"question": "Why?", "answer": "salt"}, {"train": [{"id": "1"}]}):
        with pytest.raises(DataError, match="Expected a file name or a list of rows, got dict"):
            load_questions(row)


def test_cells_of_other_libraries_are_read_at_every_depth():
    arc = {"id": "1", "question": "Why?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}
    arrays = {**arc, "choices": {name: np.array(one, dtype=object) for name, one in arc["choices"].items()}}
    torch = pytest.importorskip("torch")
    tensors = {"id": torch.tensor(1), "question": "Why?", "choices": ["x", "y"], "answer": torch.tensor(1)}
    for row in (arrays, tensors):
        (one,) = load_questions([row])
        assert (one.id, one.choices, one.answers) == ("1", ["x", "y"], ["B"])
    (one,) = load_questions([{"id": "1", "question": np.str_("Why?")}])
    assert type(one.question) is str


def test_classes_are_read_by_name():
    datasets = pytest.importorskip("datasets")

    def answers(names, values, **options):
        rows = [
            {"id": str(place), "question": "Why?", "answer": value, **options} for place, value in enumerate(values)
        ]
        found = datasets.Dataset.from_list(rows)
        found = found.cast_column("answer", datasets.ClassLabel(names=names))
        return [one.answers for one in load_questions(found)]

    assert answers(["yes", "no", "maybe"], [1, 2, -1]) == [["no"], ["maybe"], []]
    assert answers(list("ABCD"), [2, -1], choices=["p", "q", "r", "s"]) == [["C"], []]
    assert answers(["0", "1"], [1], choices=["p", "q"]) == [["B"]]


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"\x28\xb5\x2f\xfd\x04\x00\x59", "unpack it, or pack it with gzip"),
        (bz2.compress(b"salt" * 50), "unpack it, or pack it with gzip"),
        (lzma.compress(b"salt" * 50), "unpack it, or pack it with gzip"),
        (b"PK\x03\x04\x14\x00\x00\x00", "unpack it, or pack it with gzip"),
        (b"\x1f\x8b\x08\x00", r"name must end in \.gz"),
        ('{"id": 1}'.encode("utf-16"), "save it as UTF-8"),
        ('{"id": 1}'.encode("utf-32"), "it is UTF-16 or UTF-32: save it as UTF-8"),
        ('{"id": 1}'.encode("utf-32-be"), "it is UTF-16 or UTF-32: save it as UTF-8"),
        (
            json.dumps({"examples": [ASKED]}, indent=2).encode(),
            r"on one line \(jq -c\), or in one JSON array",
        ),
    ],
    ids=["zstd", "bzip2", "xz", "zip", "gzip", "utf-16", "utf-32", "unmarked", "indented"],
)
def test_files_of_another_kind_are_told_what_to_do(data, advice, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=advice):
        load_questions(path)


@pytest.mark.parametrize(
    "row",
    [
        {"contexts": ["c"], "answer": "I think Lyon", "ground_truth": "Paris"},
        {"contexts": ["c"], "answer": "I think Lyon", "ground_truths": ["Paris"]},
        {"answer": "I think Lyon", "gold_answer": "Paris"},
    ],
)
def test_what_is_called_gold_comes_before_an_answer(row):
    assert load_questions([{"id": "q", "question": "Capital?", **row}])[0].answers == ["Paris"]


def test_options_that_are_numbers():
    row = {"id": "q", "question": "2+2?", "A": 3, "B": 4, "C": 5.0, "D": 6, "answer": "B"}
    example = load_questions([row])[0]
    assert (example.choices, example.answers) == (["3", "4", "5", "6"], ["B"])


def test_a_gap_between_options_is_named():
    with pytest.raises(DataError, match="none as 'C'"):
        load_questions([{"id": "q", "question": "q", "A": "x", "B": "y", "C": None, "D": "w", "answer": "D"}])


def test_options_that_a_table_filled_up():
    rows = [
        {"id": "1", "question": "q", "options": {"A": "x", "B": "y", "C": None}, "answer": "B"},
        {"id": "2", "question": "r", "options": {"A": "x", "B": "y", "C": "z"}, "answer": "C"},
    ]
    assert [(one.choices, one.answers) for one in load_questions(rows)] == [
        (["x", "y"], ["B"]),
        (["x", "y", "z"], ["C"]),
    ]


@pytest.mark.parametrize("labels", [("p1",), {"p1"}, "p1", {"p1": 1, "p2": 0}, np.array(["p1"])], ids=repr)
def test_labels_in_any_collection(labels):
    assert load_questions([{"id": "q", "question": "q", "answer": "a", "relevant": labels}])[0].relevant == ["p1"]


def test_aliases_that_a_table_keeps_as_text():
    row = {"id": "q", "question": "q", "answer": "x", "answer_aliases": '["y", "z"]'}
    assert load_questions([row])[0].answers == ["x", "y", "z"]


def test_a_title_of_its_own_stays():
    rows = [
        {"id": "a", "title": "Harrison", "contents": "Fever is common.\nIt is treated with rest."},
        {"id": "b", "title": "Fever", "contents": '"Fever"\nIt is common.'},
    ]
    found = [(one.title, one.text) for one in load_corpus(rows)]
    assert found == [("Harrison", "Fever is common.\nIt is treated with rest."), ('"Fever"', "It is common.")]


@pytest.mark.parametrize(
    ("given", "metadata"),
    [
        ({"metadata": '{"tenant": "a"}'}, {"tenant": "a"}),
        ({"metadata": {}, "meta": {"tenant": "a"}}, {"tenant": "a"}),
        ({"metadata": "abc"}, {}),
        ({"metadata": {"price": Decimal("1.5"), "tags": {"b", "a"}}}, {"price": "1.5", "tags": ["a", "b"]}),
    ],
)
def test_metadata_of_passages(given, metadata):
    assert load_corpus([{"id": "a", "text": "Ice floats.", **given}])[0].metadata == metadata


def test_metadata_too_deep_to_read():
    deep: dict = {}
    for _ in range(3000):
        deep = {"a": deep}
    with pytest.raises(DataError, match="nested too deeply"):
        load_corpus([{"id": "a", "text": "Ice floats.", "metadata": deep}])
