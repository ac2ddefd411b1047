"""Folders and files take their place in one step; what came there meanwhile, and what is private, stays as it is."""

import contextlib
import stat
import sys
import threading
from pathlib import Path

import dspy
import pytest

from radio_dspy.cli.places import check_places
from radio_dspy.core import files
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.files import check_file, new_folder, place_problem, replacing, take_place, write_json
from radio_dspy.datasets.groups import write_groups
from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness
from radio_dspy.models.remote_encoder import RemoteEncoder

ADVICE = "give a new folder."
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs modes and links")


@pytest.fixture(params=["exchange", "rename"])
def way(request, monkeypatch):
    """With the system's exchange of two folders, and without."""
    if request.param == "rename":
        monkeypatch.setattr(files, "_exchanged", lambda *_: False)


def made(folder, meanwhile=lambda: None):
    with new_folder(folder, ADVICE) as making:
        (making / "a").write_text("ours")
        meanwhile()
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.usefixtures("way")
def test_a_private_folder_stays_private_with_what_git_needs(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "mine" / ".gitignore").write_text("*")
    assert made(tmp_path / "mine") == [".gitignore", "a"]
    assert mode(tmp_path / "mine") == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("there", [True, False], ids=["empty", "new"])
def test_what_came_there_meanwhile_is_left(tmp_path, there):
    folder = tmp_path / "out"

    def another():
        folder.mkdir(exist_ok=True)
        (folder / "mine.txt").write_text("mine")

    if there:
        folder.mkdir()
        (folder / ".gitkeep").touch()
    with pytest.raises(SettingsError, match=f"already there; {ADVICE}"):
        made(folder, another)
    assert sorted(path.name for path in folder.iterdir()) == [".gitkeep", "mine.txt"][1 - there :]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs an exchange of two folders")
def test_what_comes_there_at_the_last_moment_is_left_also_under_the_same_name(tmp_path, monkeypatch):
    exchange, came = files._exchanged, []

    def late(making, target):
        if not came:
            came.append((target / "a").write_text("another's"))
        return exchange(making, target)

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(files, "_exchanged", late)
    with pytest.raises(SettingsError, match=ADVICE):
        made(tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "another's"


def test_of_two_that_write_at_once_one_is_refused(tmp_path):
    gate, ends = threading.Barrier(2, timeout=20), []

    def one():
        try:
            ends.append(made(tmp_path / "out", gate.wait))
        except SettingsError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["a"] in ends
    assert any(ADVICE in str(end) for end in ends)


@posix
@pytest.mark.usefixtures("way")
def test_a_rename_that_fails_puts_back_what_git_needs(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".gitkeep").write_text("kept")
    monkeypatch.setattr(files, "take_place", lambda *_, **__: False)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(39, "Directory not empty")))
    with pytest.raises(SettingsError, match="cannot be written"):
        made(tmp_path / "out")
    assert (tmp_path / "out" / ".gitkeep").read_text() == "kept"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs an exchange of two folders")
def test_a_folder_takes_anothers_place_and_keeps_its_other_files(tmp_path):
    for name, text in (("old", "old"), ("new", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page").write_text(text)
    (tmp_path / "old" / "notes").write_text("mine")
    if not take_place(tmp_path / "new", tmp_path / "old"):
        pytest.skip("this file system cannot exchange two folders")
    assert {path.name: path.read_text() for path in (tmp_path / "old").iterdir()} == {"page": "new", "notes": "mine"}
    (tmp_path / "old" / "pictures").mkdir()
    assert not take_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "page").read_text() == "new"


@posix
def test_a_private_file_stays_private_and_a_link_is_not_replaced(tmp_path):
    private, link = tmp_path / "private.json", tmp_path / "link.json"
    private.write_text("{}")
    private.chmod(0o600)
    write_json(private, {"a": 1})
    assert mode(private) == 0o600
    link.symlink_to(private)
    with pytest.raises(SettingsError, match="no file"), replacing(link):
        pass
    assert check_file(link, ADVICE) == private.resolve()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a\ud800b"], ids=["long", "zero", "surrogate"])
def test_a_name_that_no_system_takes_is_refused_at_once(tmp_path, name):
    with pytest.raises(SettingsError, match="leads nowhere"):
        made(tmp_path / name)


@posix
def test_links_in_a_circle_are_refused_and_the_longest_names_are_taken(tmp_path):
    for one, other in ("ab", "ba"):
        (tmp_path / one).symlink_to(tmp_path / other)
    with pytest.raises(SettingsError, match="leads nowhere"):
        check_file(tmp_path / "a", ADVICE)
    assert made(tmp_path / ("y" * 250)) == ["a"]
    write_json(tmp_path / ("z" * 250), {})


def test_nothing_is_put_into_a_saved_program(tmp_path):
    (tmp_path / "manifest.json").touch()
    assert not place_problem(tmp_path / "v2")
    (tmp_path / "program.json").touch()
    assert "could then not be loaded" in place_problem(tmp_path / "v2")
    with pytest.raises(SettingsError, match="saved program"):
        made(tmp_path / "exports" / "v2")


@pytest.mark.parametrize(
    ("there", "problem"),
    [
        ({"manifest.json": "{}", "program.json": "{}"}, "saved program"),
        ({"manifest.json": '{"format": 1, "files": {}}', "passages.jsonl": ""}, "saved index"),
        ({"manifest.json": '{"format": 3, "files": {}}', "passages-0123456789abcdef.jsonl": ""}, "saved index"),
        ({"config.json": "{}", "model.safetensors": ""}, "among the weights"),
        ({"manifest.json": '{"name": "an app"}', "passages.jsonl": ""}, ""),
        ({"manifest.json": "[", "passages.jsonl": ""}, ""),
        ({"config.json": "{}", "corpus.jsonl": ""}, ""),
    ],
)
def test_no_file_is_put_into_a_folder_that_is_a_whole(tmp_path, there, problem):
    """Whatever writes a file of the user's naming: groups, kept scores, vectors, results."""
    for name, text in there.items():
        (tmp_path / name).write_text(text)
    places = {
        "groups": lambda: write_groups([], tmp_path / "mine.jsonl"),
        "scores": lambda: AnswerCorrectness(dspy.LM("openai/x"), keep=tmp_path / "mine.jsonl"),
        "vectors": lambda: RemoteEncoder("openai/e", cache=tmp_path / "mine.sqlite"),
        "result": lambda: check_places({"json_file": tmp_path / "mine.json"}, "whole"),
    }
    for put in places.values():
        with pytest.raises(SettingsError, match=problem) if problem else contextlib.suppress(DataError):
            put()
    assert {one.name for one in tmp_path.iterdir()} - {*there} <= (set() if problem else {"mine.sqlite"})
