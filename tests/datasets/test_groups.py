import gzip
import json

import pytest

import radio_dspy as radio
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.datasets.groups import load_groups, write_groups

ROW = {"query": "why?", "pos": ["yeast", "heat"], "neg": ["ice", "salt", "stone"]}
SCORED = {**ROW, "pos_scores": [0.9, 1], "neg_scores": [0.1, 0.3, 0.2], "prompt": "Find: ", "id": 7, "type": "normal"}
PASSAGES = [Passage("a", "yeast", "Bread"), Passage("b", "ice"), Passage("c", "salt")]
KEPT = {"id": "q1", "query": "why?", "positive": "a", "negatives": ["b"], "random": ["c"], "scores": [1.0, 0.5, 0.0]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, [ROW, SCORED])), encoding="utf-8")
    return path


def test_lines_become_examples(file):
    plain, scored = load_groups(file)
    assert plain.toDict() == {"question": "why?", "pos": ["yeast", "heat"], "neg": ["ice", "salt", "stone"]}
    assert list(plain.inputs().keys()) == ["question"]
    assert (scored.pos_scores, scored.neg_scores) == ([0.9, 1.0], [0.1, 0.3, 0.2])
    assert (scored.prompt, scored.id) == ("Find: ", "7")


def test_packed_files_and_rows_are_read_too(file, tmp_path):
    packed = tmp_path / "train.jsonl.gz"
    with gzip.open(packed, "wt", encoding="utf-8") as lines:
        lines.write(file.read_text())
    assert [one.toDict() for one in load_groups(packed)] == [one.toDict() for one in load_groups(file)]
    assert load_groups([ROW])[0].pos == ROW["pos"]


def test_a_hugging_face_dataset_is_read_too():
    datasets = pytest.importorskip("datasets")
    assert load_groups(datasets.Dataset.from_list([ROW, ROW]))[1].neg == ROW["neg"]


def test_the_groups_that_a_run_kept_get_their_texts_back(tmp_path):
    asked = []

    class Held:
        def passages_by_id(self, ids):
            asked.append(ids)
            return [passage for passage in PASSAGES if passage.id in ids]

    (one,) = load_groups([KEPT], passages=PASSAGES)
    assert load_groups([KEPT, ROW], passages=Held())[0] == one
    assert asked == [["a", "b", "c"]]
    assert (one.pos, one.neg) == (["Bread\nyeast"], ["ice", "salt"])
    assert (one.pos_scores, one.neg_scores) == ([1.0], [0.5, 0.0])
    with pytest.raises(DataError, match=r"row 1: names passage 'a'"):
        load_groups([KEPT])
    with pytest.raises(DataError, match="'c', which is not among them"):
        load_groups([KEPT], passages=PASSAGES[:2])
    with pytest.raises(DataError, match="2 'scores' for 3 passages"):
        load_groups([{**KEPT, "scores": [1.0, 0.5]}], passages=PASSAGES)


def test_what_is_written_is_what_flagembedding_reads(file, tmp_path):
    written = write_groups(load_groups(file), tmp_path / "again" / "groups.jsonl")
    rows = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ROW
    assert rows[1] == {name: value for name, value in SCORED.items() if name not in ("id", "type")}
    assert [one.pos for one in radio.load_groups(written)] == [ROW["pos"]] * 2


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "a", "contents": "a corpus"}\n',
        '{"query": "why?", "pos": ["a"], "neg": ["b"], "source": "mine"}\n',
        '{"query":"why?","pos":["a"],"neg":["b"]}\n',  # by another hand
        '{"pos": ["a"], "query": "why?", "neg": ["b"]}\n',
        '{"query": "why?", "pos": ["a"], "neg": ["b"]}\nmy notes\n',
        '{"query": "why?", "pos": ["a"], "neg": ["b"]}',
        "[1, 2]\n",
        "{}\n",
    ],
)
def test_only_what_it_wrote_is_replaced(file, tmp_path, text):
    path = tmp_path / "there.jsonl"
    path.write_text(text)
    with pytest.raises(SettingsError, match="holds something else than groups, and stays"):
        write_groups(load_groups(file), path)
    assert path.read_text() == text
    path.write_text("")
    for groups in (load_groups(file), load_groups([{**ROW, "query": "größer \u2028"}]), load_groups([ROW])):
        write_groups(groups, path)
    assert [one.question for one in load_groups(path)] == ["why?"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": 7}, "needs a string 'query' that is not empty"),
        ({"pos": 7}, "needs a list of strings 'pos', got 7"),
        ({"neg": None}, "needs a list of strings 'neg', got None"),
        ({"neg": ["ice", 7]}, "'neg' must hold strings that are not empty, got 7 in it"),
        ({"pos_scores": [1.0, 0.9]}, "give both 'pos_scores' and 'neg_scores', or neither"),
        ({"pos_scores": [1.0], "neg_scores": [0, 0, 0]}, "'pos_scores' must hold one number for each of the 2 texts"),
        ({"pos_scores": [1.0, True], "neg_scores": [0, 0, 0]}, "must hold finite numbers, got True"),
        ({"pos_scores": [1.0, float("nan")], "neg_scores": [0, 0, 0]}, "must hold finite numbers, got nan"),
    ],
)
def test_a_bad_line_is_named(change, message, file):
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\n" + json.dumps({**ROW, **change}))
    with pytest.raises(DataError) as error:
        load_groups(file)
    assert str(error.value).startswith(f"{file}:3: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "change", [{"query": " "}, {"query": None}, {"pos": []}, {"pos": "\u200b"}, {"neg": ["ice", ""]}], ids=str
)
def test_a_line_with_nothing_in_it_is_left_out(change, file, caplog):
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\n" + json.dumps({**ROW, **change}))
    assert len(load_groups(file)) == 2
    (told,) = caplog.messages
    assert "left out 1 of 3 groups" in told
    assert "train.jsonl:3" in told
    with pytest.raises(DataError, match="row 1: "):
        load_groups([{**ROW, **change}])


@pytest.mark.parametrize(
    ("row", "neg"),
    [
        ({"anchor": "why?", "positive": "yeast", "negative": "ice"}, ["ice"]),
        ({"query": "why?", "positive": "yeast", "negative_1": "ice", "negative_2": "salt"}, ["ice", "salt"]),
        (
            {"question": "why?", "positive": ["yeast"], "negative": ["ice", "salt"], "api_base": "http://x"},
            ["ice", "salt"],
        ),
        ({"query": "why?", "pos": ["yeast"], "neg": ["ice"], "type": "normal", "pos_id": [4]}, ["ice"]),
        ({"query": "why?", "pos": "yeast", "neg": "ice"}, ["ice"]),
        ({"query": "why?", "answer": "yeast", "negative": "ice"}, ["ice"]),
        ({"query": "why?", "positives": ["yeast"], "negatives": ["ice", "salt"]}, ["ice", "salt"]),
        (
            {
                "query": "why?",
                "positive_passages": [{"docid": "1", "title": "", "text": "yeast"}],
                "negative_passages": [{"docid": "2", "title": "Ice", "text": "cold"}],
            },
            ["Ice\ncold"],
        ),
        (
            {
                "question": "why?",
                "answers": ["heat"],
                "positive_ctxs": [{"title": "", "text": "yeast", "score": 9}],
                "negative_ctxs": [],
                "hard_negative_ctxs": [{"title": "Ice", "text": "cold"}],
            },
            ["Ice\ncold"],
        ),
    ],
)
def test_shapes_of_triplets(row, neg):
    """Triplets of sentence-transformers; other keys of a line are nothing to act upon."""
    (one,) = load_groups([row])
    assert one.toDict() == {"question": "why?", "pos": ["yeast"], "neg": neg}


@pytest.mark.parametrize("positive", ["", None, [], float("nan")])
def test_a_triplet_without_a_positive_is_left_out(positive, caplog):
    row = {"anchor": "why?", "positive": "yeast", "negative": "ice"}
    (one,) = load_groups([row, {**row, "positive": positive}])
    assert one.pos == ["yeast"]
    assert "left out 1 of 2 groups" in caplog.text


@pytest.mark.parametrize("name", ["scores", "score"])
def test_scores_of_mined_negatives_are_kept(name):
    row = {"anchor": "why?", "positive": "yeast", "negative_1": "ice", "negative_2": "salt"}
    (one,) = load_groups([{**row, name: [0.9, 0.2, 0.1]}])
    assert (one.pos_scores, one.neg_scores) == ([0.9], [0.2, 0.1])
    assert "pos_scores" not in load_groups([{**row, name: 3.5}])[0]  # a margin


def test_a_positive_of_several_words_is_no_id():
    row = {"query": "why?", "positive": "Yeast dies.", "negatives": ["Ice floats."]}
    assert load_groups([row], passages=PASSAGES)[0].pos == ["Yeast dies."]
    with pytest.raises(DataError, match=r"names passage 'Yeast dies\.'"):
        load_groups([{**row, "random": []}])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"anchor": "why?", "positive": "yeast"}, "needs a list of strings 'neg', got None"),
        (
            {"query": "why?", "answer": "yeast", "label": 1},
            "needs a list of strings 'neg', got None",
        ),
        (
            {"query": "why?", "positive": "yeast", "negative": 7},
            "'neg' must hold strings that are not empty, got 7 in it",
        ),
    ],
)
def test_what_is_missing_is_named(row, message):
    with pytest.raises(DataError, match=message):
        load_groups([row])


def test_nothing_to_read(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"empty\.jsonl: holds no groups"):
        load_groups(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="no such file"):
        load_groups(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="row 1: expected a mapping, got str"):
        load_groups(["why?"])
