"""An index that is made straight from the files of a corpus: the files of `build` and `save`, without all in memory."""

import json
import tracemalloc

import pytest

from radio_dspy.core.errors import DataError
from radio_dspy.datasets.loading import load_corpus
from radio_dspy.models.encoder import BLOCK
from radio_dspy.retrievers import FaissRetriever
from tests.retrievers.counting import Counting

ROWS = [
    {"id": f"p{number}", "title": f"T{number % 3}", "text": "x" * (number % 60 + 1)} for number in range(BLOCK + 90)
]


def written(folder, rows, kind="jsonl"):
    folder.mkdir()
    half = len(rows) // 2
    for part, some in enumerate((rows[:half], rows[half:])):
        if kind == "jsonl":
            (folder / f"part-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        else:
            arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            parquet.write_table(arrow.Table.from_pylist(some), folder / f"part-{part}.parquet")
    return folder


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "layout", [{}, {"kind": "ivf", "sample_queries": ["xx"]}, {"kind": "hnsw", "dtype": "float16"}], ids=str
)
def test_the_files_are_those_of_build_and_save(tmp_path, kind, layout):
    rows = [*ROWS, {"id": "blank", "title": "", "text": " "}, ROWS[3]]
    source = written(tmp_path / "corpus", rows, kind)
    FaissRetriever.build(load_corpus(source), Counting(), **layout).save(tmp_path / "built")
    found = FaissRetriever.build_from(source, tmp_path / "streamed", Counting(), **layout)
    built, streamed = (
        {one.name: one.read_bytes() for one in (tmp_path / name).iterdir()} for name in ("built", "streamed")
    )
    assert built == streamed
    assert len(found) == len(ROWS)
    assert found("T0\nx", k=1).passages[0].id == "p0"


def test_what_is_left_out_is_told_once(tmp_path, caplog):
    FaissRetriever.build_from(
        written(tmp_path / "corpus", [*ROWS, ROWS[5], ROWS[3], {"id": "blank", "text": ""}]), tmp_path / "i", Counting()
    )
    assert [one.message for one in caplog.records] == [
        f"{tmp_path / 'corpus'}: left out 3 of {len(ROWS) + 3} passages, the first of them 'blank' "
        f"({tmp_path / 'corpus' / 'part-1.jsonl'}:{len(ROWS) + 3 - (len(ROWS) + 3) // 2}: 'text' is empty.)"
    ]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([*ROWS, {"id": "p7", "text": "another"}], "id 'p7' was used for passage 8 and for another one, passage 603"),
        ([{"id": "a", "text": ""}], "text"),
    ],
)
def test_a_corpus_that_cannot_be_used_leaves_no_index(tmp_path, rows, problem):
    encoder = Counting(instead=lambda count: pytest.fail("paid for"))
    with pytest.raises(DataError, match=problem):
        FaissRetriever.build_from(written(tmp_path / "corpus", rows), tmp_path / "index", encoder)
    assert not (tmp_path / "index").exists() or not list((tmp_path / "index").iterdir())


def test_the_corpus_is_never_in_memory_as_a_whole(tmp_path):
    rows = [{"id": f"p{number}", "text": f"{number} " * 500} for number in range(12 * BLOCK)]
    source = written(tmp_path / "corpus", rows)
    size = sum(one.stat().st_size for one in source.iterdir())
    del rows
    tracemalloc.start()
    FaissRetriever.build_from(source, tmp_path / "index", Counting())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 3
