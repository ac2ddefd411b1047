"""Corpora and questions in folders of files, as clusters write them."""

import json

import pytest

import radio_dspy as radio
from radio_dspy.core.errors import DataError

ROWS = [{"id": f"p{number}", "text": f"Passage {number} of four."} for number in range(4)]


def written(folder, kind):
    folder.mkdir()
    for part, rows in enumerate((ROWS[:3], ROWS[3:])):
        if kind == "jsonl":
            (folder / f"part-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            parquet.write_table(arrow.Table.from_pylist(rows), folder / f"part-{part}.parquet")
    (folder / "_SUCCESS").write_text("")
    return folder


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_folder_of_parts_is_one_corpus(tmp_path, kind):
    found = radio.load_corpus(written(tmp_path / kind, kind))
    assert [(one.id, one.text) for one in found] == [(row["id"], row["text"]) for row in ROWS]


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"without a \.jsonl or \.parquet file"):
        radio.load_corpus(tmp_path / "empty")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no Parquet file that can be read"):
        radio.load_corpus(tmp_path / "torn.parquet")
