import os
import subprocess
import sys

import pytest

from radio_dspy.core.errors import DataError, RunError, SettingsError
from radio_dspy.core.files import check_new, new_folder
from radio_dspy.core.locks import ThreadLock
from radio_dspy.distillation.training.checkpoints import remove_checkpoints
from radio_dspy.runs.folders import cache_folder
from radio_dspy.runs.run import Run, look_at

KEY = "0123456789abcdef"


def take_up(folder, optimizer="RADIO"):
    with Run(folder).exclusive(optimizer):
        pass


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "name",
    [
        "thesis.md", "report.md", "manifest.json", "training-set-7/a.csv", ".training-pictures/a",
        # Names that runs write, by which nothing is proved.
        ".training-settings/state.json", f".training-{KEY * 2}/reranker/a", f".log.jsonl.{KEY * 2}",
        f".manifest.json.{KEY * 2}", f"training-{KEY}-1/state.json", f"reranker-{KEY}/model.safetensors",
        "rationales.jsonl", "groups.jsonl", "run.lock", "report.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("locked", [False, True])
def test_a_folder_that_is_not_ours_is_refused_and_left_as_it_was(tmp_path, name, locked):
    """A lock beside it proves nothing about it either."""
    if locked:
        (tmp_path / "run.lock").write_text('{"process": 1, "host": "here", "since": "today"}')
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_text('{"name": "mine"}\n')
    before = everything(tmp_path)
    with pytest.raises(RunError, match="not a run"):
        take_up(tmp_path)
    assert everything(tmp_path) == before


def test_a_new_an_empty_and_an_own_folder_are_taken_up(tmp_path):
    (tmp_path / "desktop").mkdir()
    (tmp_path / "desktop" / ".DS_Store").write_text("x")
    for name in ("new", "desktop", "new"):
        take_up(tmp_path / name)
    assert look_at(tmp_path / "new").state == "finished"


def test_in_a_run_only_what_runs_wrote_is_removed(tmp_path):
    take_up(tmp_path)
    for name in (
        ".training-holidays/a.jpg",
        f".training-{KEY * 2}/reranker/chapter.tex",
        ".training-settings/state.json",
        f"training-{KEY}-3/mine.txt",
        f"training-{KEY}-4/state.json",
        f".notes.txt.{KEY * 2}",
        f".log.jsonl.{KEY * 2}",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("mine")
    take_up(tmp_path)
    remove_checkpoints(tmp_path)
    assert not (tmp_path / f".log.jsonl.{KEY * 2}").exists()
    assert len([path for path in tmp_path.rglob("*") if path.is_file() and path.read_text() == "mine"]) == 6


def test_one_optimizer_does_not_take_up_the_run_of_another(tmp_path):
    take_up(tmp_path / "radio")
    with pytest.raises(RunError, match="a run of RADIO"):
        take_up(tmp_path / "radio", "GroupFinetune")
    take_up(tmp_path / "groups", "GroupFinetune")
    take_up(tmp_path / "groups", "GroupFinetune")


@pytest.mark.parametrize("text", ["[]", '{"kind": "radio-dspy run", "format": "x"}', "[" * 90_000, "\0\1", "{"])
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        take_up(tmp_path)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match="a link"):
        take_up(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("text", ['{"a": 1}\n{"a": 2}', '{"a": 1}', '{"text": "my only line, unfinis', "my notes"])
@pytest.mark.parametrize("name", ["scores", "signals"])
def test_a_last_line_that_nobody_here_wrote_is_not_cut_off(tmp_path, text, name):
    path = tmp_path / f"{name}.jsonl"
    path.write_text(text)
    for add in (lambda: Run(tmp_path).append_record(name, {"a": 3}), lambda: Run(tmp_path).check_end(name)):
        with pytest.raises(DataError, match="no record"):
            add()
    assert path.read_text() == text


def test_the_only_line_of_a_run_that_was_cut_off_by_a_kill_goes(tmp_path):
    take_up(tmp_path)
    (tmp_path / "signals.jsonl").write_text('{"signal": "correct')
    Run(tmp_path).append_record("signals", {"a": 3})
    assert Run(tmp_path).read_records("signals") == [{"a": 3}]


def test_a_full_disk_is_told_with_what_to_do(tmp_path):
    with pytest.raises(RunError, match=r"No space left on device.*make room"), Run(tmp_path / "run").exclusive():
        raise OSError(28, "No space left on device")


def test_a_new_folder_may_be_a_link_and_the_working_folder_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / ".gitkeep").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "far")
    with new_folder(tmp_path / "link", "x") as making:
        (making / "a").write_text("a")
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == [".gitkeep", "a"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SettingsError, match="working folder"):
        check_new(type(tmp_path)("."), "x")


@pytest.mark.parametrize("name", ["run.lock", "signals.jsonl"])
def test_without_a_manifest_every_file_proves_itself(tmp_path, name):
    Run(tmp_path).append_record("signals", {"key": "a"})
    (tmp_path / name).touch()
    Run(tmp_path).check()
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(RunError, match=r"not a run folder.*report\.md.*copy what was paid for"):
        Run(tmp_path).check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_finds_locks_free_that_other_threads_held():
    code = """
import os, threading
from radio_dspy.core import credentials, locks
from radio_dspy.lm import waiting
own = [locks.ThreadLock(), waiting._LOCK, credentials._KNOWN._lock]
held, done = threading.Event(), threading.Event()
def hold():
    with own[0], own[1], own[2]:
        held.set(); done.wait(20)
threading.Thread(target=hold).start(); held.wait()
child = os.fork()
if child == 0:
    with own[0], own[1], own[2]: os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])); done.set()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "7", done.stderr
    with (lock := ThreadLock()), lock:
        pass


def test_a_run_without_a_folder_lies_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RADIO_DSPY_CACHE", str(tmp_path / "cache"))
    first, second = Run(), Run()
    first.check()
    assert not (tmp_path / "cache").exists()  # looking makes no folder
    assert first.path.parent == second.path.parent == (tmp_path / "cache" / "runs").resolve()
    assert first.path != second.path
    monkeypatch.delenv("RADIO_DSPY_CACHE")
    assert cache_folder().parts[-2:] == ("radio-dspy", "runs")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RADIO_DSPY_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunError, match="another folder as RADIO_DSPY_CACHE"):
        Run().check()
