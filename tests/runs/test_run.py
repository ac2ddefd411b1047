import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from radio_dspy.core.errors import DataError, RunError
from radio_dspy.core.files import replacing, write_json
from radio_dspy.lm.parallel import interrupt_later
from radio_dspy.runs.run import Run, look_at, runs_in


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


def test_a_changed_byte_is_noticed_and_old_lines_without_a_checksum_are_read(tmp_path):
    run = Run(tmp_path)
    path = tmp_path / "rationales.jsonl"
    path.write_text('{"id": "old"}\n')
    for name in ("a", "b"):
        run.append_record("rationales", {"id": name, "rationale": "x" * 20})
    whole = path.read_bytes()
    assert next(run.records("rationales")) == {"id": "old"}
    path.write_bytes(whole[:-40] + b"y" + whole[-39:])  # in the last line: as good as torn
    assert [one["id"] for one in run.read_records("rationales")] == ["old", "a"]
    run.append_record("rationales", {"id": "c"})
    assert [one["id"] for one in run.read_records("rationales")] == ["old", "a", "c"]
    path.write_bytes(whole.replace(b"xxxx", b"xyxx", 1))
    with pytest.raises(DataError, match=r"rationales\.jsonl:2: not a whole record"):
        run.read_records("rationales")


@pytest.mark.parametrize("cut", [1, 5, 30, 75])
def test_wherever_a_line_is_cut_the_ones_before_it_stay(tmp_path, cut):
    run = Run(tmp_path)
    for name in ("a", "b"):
        run.append_record("signals", {"id": name, "text": "ü\ud800" + "z" * 60})
    path = tmp_path / "signals.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [one["id"] for one in run.records("signals")] == ["a"]
    size = path.stat().st_size
    assert look_at_nothing_is_written(run, path) == size
    run.append_record("signals", {"id": "c"})
    assert [one["id"] for one in run.records("signals")] == ["a", "c"]


def look_at_nothing_is_written(run, path):
    list(run.records("signals"))
    return path.stat().st_size


def test_a_long_torn_line_is_cut_off_whole(tmp_path):
    run = Run(tmp_path)
    run.append_record("requests", {"id": "a"})
    with (tmp_path / "requests.jsonl").open("ab") as file:
        file.write(b'{"id": "b", "text": "' + b"x" * 200_000)
    run.append_record("requests", {"id": "c", "text": "y" * 200_000})
    assert [one["id"] for one in run.records("requests")] == ["a", "c"]


def test_threads_append_whole_lines(tmp_path):
    def work(number):
        for row in range(20):
            Run(tmp_path).append_record("signals", {"id": f"{number}-{row}"})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one["id"] for one in Run(tmp_path).records("signals")}) == 80


def test_threads_that_wait_for_the_disk_share_a_sync(tmp_path, monkeypatch):
    run, synced, began, go_on = Run(tmp_path), [], threading.Event(), threading.Event()
    whole = os.fsync

    def slow(file):
        began.set()
        assert go_on.wait(10)
        whole(file)
        synced.append([one["id"] for one in run.records("signals")])

    monkeypatch.setattr(os, "fsync", slow)
    threads = [threading.Thread(target=run.append_record, args=("signals", {"id": number})) for number in range(5)]
    threads[0].start()
    assert began.wait(10)  # the first is at it: the others write their lines and wait
    for thread in threads[1:]:
        thread.start()
    while len(run.read_records("signals")) < 5:
        time.sleep(0.001)
    assert all(thread.is_alive() for thread in threads)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(synced) == 2
    assert sorted(synced[-1]) == [0, 1, 2, 3, 4]


def test_reading_makes_no_folder_and_a_temporary_run_has_one_only_when_it_writes(tmp_path):
    assert Run(tmp_path / "new").read_records("rationales") == []
    assert Run().read_records("rationales") == []
    assert Run().read("report") is None
    assert not (tmp_path / "new").exists()


def python(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **options)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """The limit on a file's size stands in for the disk's: the write fails half way through the line."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    code = """
import sys
from radio_dspy.runs import Run
run = Run(sys.argv[1])
for number in range(9):
    try:
        run.append_record("rationales", {"id": number, "text": "x" * 100})
    except OSError as error:
        print(error)
run.append_record("log", {"small": True})
"""
    done = python(code, tmp_path, stdout=subprocess.PIPE, preexec_fn=limited)
    said, _ = done.communicate()
    assert "File too large" in said
    assert done.returncode == 0
    lines = (tmp_path / "rationales.jsonl").read_bytes().splitlines(keepends=True)
    assert [one["id"] for one in Run(tmp_path).records("rationales")] == [0, 1]
    assert len(lines) == 2  # nothing half is left behind


HOLD = """
import sys, time
from radio_dspy.runs import Run
with Run(sys.argv[1]).exclusive():
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_writes_and_a_dead_one_holds_nothing(tmp_path):
    holder = python(HOLD, tmp_path, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=rf"in use by process {holder.pid} on .*, since 20"), Run(tmp_path).exclusive():
        pass
    Run(tmp_path).write("manifest", {"kind": "radio-dspy run", "format": 1, "settings": {}})
    assert (look_at(tmp_path).state, f"process {holder.pid}" in look_at(tmp_path).holder) == ("running", True)
    (tmp_path / f".training-{'a' * 32}" / "reranker").mkdir(parents=True)
    (tmp_path / ".training-a1b2c3d4").mkdir()  # so named it may be the user's
    (tmp_path / f".report.json.{'0' * 32}").write_text("half")
    (tmp_path / ".mine").write_text("stays")
    holder.kill()
    holder.communicate()
    assert look_at(tmp_path).state == "killed"
    with Run(tmp_path).exclusive():
        kept = [".mine", ".training-a1b2c3d4", "log.jsonl", "manifest.json", "run.lock"]
        assert sorted(one.name for one in tmp_path.iterdir()) == kept
    assert look_at(tmp_path).state == "finished"


def test_two_threads_are_two_writers(tmp_path):
    with (
        Run(tmp_path).exclusive(),
        pytest.raises(RunError, match=f"process {os.getpid()} "),
        Run(tmp_path).exclusive(),
    ):
        pass
    with Run(tmp_path).exclusive():
        pass


def test_what_stopped_a_run_is_in_its_log_and_an_empty_temporary_folder_goes(tmp_path):
    with pytest.raises(ValueError, match="broken"), Run(tmp_path).exclusive():
        raise ValueError("broken")
    assert [one["event"] for one in Run(tmp_path).records("log")] == ["started", "stopped"]
    assert Run(tmp_path).read_records("log")[-1]["why"] == "ValueError: broken"
    empty, paid = Run(), Run()
    with pytest.raises(ValueError, match="broken"), empty.exclusive():
        raise ValueError("broken")
    assert not empty.path.exists()

    def interrupted():
        with paid.exclusive():
            paid.append_record("rationales", {"id": "a"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"kept in .*radio-dspy-.* goes on from there"):
        interrupted()
    assert paid.read_records("rationales") == [{"id": "a"}]


def test_what_changed_is_named_and_other_folders_are_left_alone(tmp_path):
    run = Run(tmp_path / "run")
    assert run.begin({"epochs": 2, "encoder": {"model": "m"}}) == {}
    assert Run(run.path).begin({"epochs": 2, "encoder": {"model": "m"}}) == {}
    assert Run(run.path).begin({"epochs": 3, "new": True}) == {
        "epochs": (2, 3), "encoder": ({"model": "m"}, None), "new": (None, True)
    }  # fmt: skip
    assert Run(run.path).begin({"epochs": 3, "new": True}) == {}
    newer = json.loads((run.path / "manifest.json").read_text()) | {"format": 99}
    write_json(run.path / "manifest.json", newer)
    with pytest.raises(RunError, match=r"run format 99; this release goes on from up to 1\. Upgrade"):
        Run(run.path).begin({})
    write_json(tmp_path / "saved" / "manifest.json", {"format": 1, "program": "RetrieveRerankAnswer"})
    with pytest.raises(RunError, match=r"manifest\.json is not a run's"):
        Run(tmp_path / "saved").begin({})
    with pytest.raises(RunError, match=r"manifest\.json is not a run's"):
        Run(tmp_path / "saved").remember_command({})
    with pytest.raises(DataError, match="not a run folder"):
        look_at(tmp_path / "saved")
    assert runs_in(tmp_path) == [tmp_path / "run"]
    assert runs_in(tmp_path / "nothing") == []
    (run.path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read"):
        Run(run.path).begin({})


def test_ctrl_c_waits_for_what_is_in_hand():
    done = []

    def work():
        with interrupt_later("record") as interrupted:
            for number in range(5):
                if interrupted.is_set():
                    break
                if number == 2:
                    signal.raise_signal(signal.SIGINT)
                done.append(number)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_a_second_time_waits_for_nothing():
    done = []

    def work():
        with interrupt_later("record"):
            for number in range(3):
                signal.raise_signal(signal.SIGINT)
                done.append(number)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [0]


def test_an_applications_own_handler_and_other_threads_are_left_alone():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with interrupt_later("record") as interrupted:
            signal.raise_signal(signal.SIGINT)
        assert (seen, interrupted.is_set()) == ([1], False)
    finally:
        signal.signal(signal.SIGINT, before)
    thread = threading.Thread(target=lambda: interrupt_later("record").__enter__())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
