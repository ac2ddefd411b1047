import gzip
import json

import pytest

import radio_dspy as radio
from radio_dspy.errors import DataError
from radio_dspy.flagembedding import load_groups, write_groups
from radio_dspy.passages import Passage

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
    (one,) = load_groups([KEPT], passages=PASSAGES)
    assert (one.pos, one.neg) == (["Bread\nyeast"], ["ice", "salt"])
    assert (one.pos_scores, one.neg_scores) == ([1.0], [0.5, 0.0])
    with pytest.raises(DataError, match=r"row 1: names passage 'a', whose text is not in the file: give load_groups"):
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
    ("change", "message"),
    [
        ({"query": " "}, "needs a string 'query' that is not empty"),
        ({"query": None}, "needs a string 'query' that is not empty"),
        ({"pos": "yeast"}, "needs a list of strings 'pos', got 'yeast'"),
        ({"pos": []}, "'pos' is empty"),
        ({"neg": None}, "needs a list of strings 'neg', got None"),
        ({"neg": ["ice", 7]}, "'neg' must hold strings that are not empty, got 7 in it"),
        ({"neg": ["ice", ""]}, "got '' in it"),
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


def test_nothing_to_read(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"empty\.jsonl: holds no groups"):
        load_groups(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="no such file"):
        load_groups(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="row 1: expected a mapping, got str"):
        load_groups(["why?"])
