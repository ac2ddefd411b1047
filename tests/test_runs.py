import pytest

from radio_dspy.errors import DataError
from radio_dspy.files import replacing, write_json
from radio_dspy.runs import Run


def test_records_come_back_and_a_torn_last_line_is_dropped(tmp_path):
    run = Run(tmp_path / "new" / "run")
    run.append_record("rationales", {"id": "a", "rationale": "größer"})
    run.append_record("rationales", {"id": "b", "rationale": "line\nbreak"})
    path = run.path / "rationales.jsonl"
    with path.open("ab") as file:
        file.write(b'{"id": "c", "rationale": "gr')
    assert [one["id"] for one in run.read_records("rationales")] == ["a", "b"]
    run.append_record("rationales", {"id": "c", "rationale": "again"})
    assert [one["id"] for one in run.read_records("rationales")] == ["a", "b", "c"]


def test_a_whole_line_that_lost_only_its_end_is_asked_again(tmp_path):
    (tmp_path / "rationales.jsonl").write_text('{"id": "a"}\n{"id": "b"}')
    assert [one["id"] for one in Run(tmp_path).read_records("rationales")] == ["a"]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "rationales.jsonl").write_text('{"id": "a"}\nnonsense\n{"id": "b"}\n')
    with pytest.raises(DataError, match=r"rationales\.jsonl:2: not a whole record"):
        Run(tmp_path).read_records("rationales")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": float("nan")})

    def half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]


def test_a_run_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file; run_dir must be a folder"):
        Run(tmp_path / "file")
