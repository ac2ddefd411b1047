"""What a run folder says is run again; where commands may write."""

import errno
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from radio_dspy.cli import command as commands
from radio_dspy.cli import experiment as experiments
from radio_dspy.cli.app import app
from radio_dspy.cli.command import write_result
from radio_dspy.cli.places import RESULT, check_places
from radio_dspy.cli.remembered import check_arguments
from radio_dspy.core.errors import SettingsError
from radio_dspy.runs.run import Run


def command(
    corpus: Path | None,
    index_folder: Path | None = None,
    lm: Annotated[str, typer.Option(help="...")] = "none",
    encoder: str | None = None,
    reranker: str = "all-MiniLM-L6-v2",
    rate: float = 1e-5,
    epochs: int = 1,
    tower: Literal["both", "query"] | None = None,
    gate: bool = True,
    name: list[str] | None = None,
) -> None:
    """Stands for a command."""


def check(folder, *, yes=False, **arguments):
    check_arguments(folder, command, {"corpus": "c.jsonl", **arguments}, folder=folder, yes=yes)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lm": "local"},
        {"lm": "none", "encoder": "all-MiniLM-L6-v2"},
        {"encoder": None, "tower": "query", "gate": False, "rate": 1, "name": ["a"]},
        {"reranker": "BAAI/bge-reranker-base"},
        {"lm": "here.gguf", "reranker": "./there"},
    ],
    ids=repr,
)
def test_what_the_command_takes_is_run(tmp_path, arguments):
    (tmp_path / "here.gguf").touch()
    (tmp_path / "there").mkdir()
    check(tmp_path, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": "2"},
        {"epochs": True},
        {"epochs": None},
        {"rate": "fast"},
        {"tower": "all"},
        {"gate": 1},
        {"corpus": ["c.jsonl"]},
        {"name": "a"},
        {"lm": {"model": "openai/x"}},
    ],
    ids=repr,
)
def test_values_of_another_type_are_refused(tmp_path, arguments):
    with pytest.raises(SettingsError, match=f"sets {next(iter(arguments))} to"):
        check(tmp_path, yes=True, **arguments)


@pytest.mark.parametrize("option", ["lm", "encoder", "reranker"])
@pytest.mark.parametrize(
    "name", ["huggingface/http://10.0.0.1/x", "huggingface/http:/10.0.0.1/x", "//host/share", "openai/localhost:8000"]
)
def test_addresses_are_refused_whatever_the_user_says(tmp_path, option, name):
    with pytest.raises(SettingsError, match="names an address"):
        check(tmp_path, yes=True, **{option: name})


@pytest.mark.parametrize(
    "arguments", [{"lm": "openai/gpt-4o-mini"}, {"lm": "gpt-4o-mini"}, {"encoder": "cohere/embed-v4.0"}], ids=repr
)
def test_a_hosted_model_needs_the_users_word(tmp_path, arguments):
    with pytest.raises(SettingsError, match="add --yes"):
        check(tmp_path, **arguments)
    check(tmp_path, yes=True, **arguments)


def places(folder, given, out="whole"):
    check_places({name: folder / one if isinstance(one, str) else one for name, one in given.items()}, out)


@pytest.mark.parametrize(
    ("out", "given"),
    [
        ("whole", {"out": "new", "run_dir": "new/run"}),
        ("whole", {"out": "new", "run_dir": "other/../new"}),
        ("whole", {"out": "new", "json_file": "new/result.json"}),
        ("whole", {"out": "run/report.html", "run_dir": "run"}),
        ("whole", {"run_dir": "run", "json_file": "run/manifest.json"}),
        ("whole", {"run_dir": "new", "json_file": "new/result.json", "estimate": True}),
        ("whole", {"report_dir": "new", "json_file": "new"}),
        ("whole", {"report_dir": "new", "json_file": "new/report.json"}),
        ("whole", {"out": "new/program", "json_file": "new"}),
        ("index", {"out": "new", "json_file": "new/manifest.json"}),
        ("index", {"out": "new", "json_file": "new/index.faiss"}),
        ("shared", {"out": "new", "json_file": "new"}),
        ("whole", {"report_dir": "program/report"}),
        ("whole", {"json_file": "program/result.json"}),
        ("whole", {"run_dir": "program/run"}),
        ("whole", {"json_file": "questions.jsonl", "questions": "questions.jsonl"}),
        ("whole", {"json_file": "thesis.json"}),
        ("whole", {"json_file": "lines.json"}),
        ("whole", {"json_file": "run"}),
        ("whole", {"json_file": "run/log.jsonl"}),
        ("whole", {"json_file": "encoder/tokenizer.json"}),
        ("whole", {"json_file": "encoder/1_Pooling/config.json"}),
        ("whole", {"json_file": "thesis.json/result.json"}),
        ("whole", {"out": "thesis.json/program"}),
    ],
    ids=repr,
)
def test_a_place_that_does_harm_is_refused_before_anything_is_done(tmp_path, out, given):
    _fill(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match="give another place"):
        places(tmp_path, given, out)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("out", "given"),
    [
        ("whole", {"out": "new", "run_dir": "run", "json_file": "result.json"}),
        ("whole", {"out": "run/program", "run_dir": "run", "json_file": "run/result.json"}),
        ("whole", {"run_dir": "run", "json_file": "run/result.json", "estimate": True}),
        ("whole", {"report_dir": "new", "json_file": "new/result.json"}),
        ("whole", {"json_file": "encoder/result.json"}),
        ("whole", {"json_file": "empty.json", "questions": "questions.jsonl", "lm": None, "k": 3}),
        ("index", {"out": "new", "json_file": "new/result.json"}),
        ("shared", {"out": "new", "json_file": "new/report.json", "records": "new/records"}),
        ("shared", {"out": "new", "records": "new"}),
    ],
    ids=repr,
)
def test_other_places_are_taken(tmp_path, out, given):
    _fill(tmp_path)
    places(tmp_path, given, out)


def test_a_result_goes_where_a_link_leads(tmp_path):
    (tmp_path / "latest.json").symlink_to(tmp_path / "far.json")
    for number in (1, 2):
        places(tmp_path, {"json_file": "latest.json"})
        write_result(tmp_path / "latest.json", {"number": number})
    assert (tmp_path / "latest.json").is_symlink()
    assert '"number": 2' in (tmp_path / "far.json").read_text()


def _fill(folder):
    with Run(folder / "run").exclusive():
        pass
    (folder / "program").mkdir()
    (folder / "encoder" / "1_Pooling").mkdir(parents=True)
    for name in ("model.safetensors", "tokenizer.json", "1_Pooling/config.json"):
        (folder / "encoder" / name).write_text("{}")
    texts = {"program/program.json": "{}", "program/manifest.json": "{}", "thesis.json": "years", "empty.json": ""}
    for name, text in {
        **texts,
        "result.json": json.dumps({"kind": RESULT}),
        "questions.jsonl": "{}\n",
        "lines.json": "{}\n{}\n",
    }.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("name", ["", "folder", "file/result.json"])
def test_a_result_that_cannot_be_written_is_told_before_anything_is_done(name, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["index", "none.jsonl", str(tmp_path / "out"), "--json", str(tmp_path / name)])
    assert (done.exit_code, "give another place" in " ".join(done.output.split())) == (2, True)


def test_a_result_holds_what_json_has_no_word_for(tmp_path):
    path = tmp_path / "new" / "result.json"
    write_result(path, {"mean": float("nan"), "folder": Path("a\udcff"), "text": "\u4e2d"})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "kind": "radio-dspy result",
        "mean": None,
        "folder": "a?",
        "text": "\u4e2d",
    }
    check_places({"json_file": path}, "whole")


def test_a_result_that_cannot_be_written_is_shown(tmp_path, monkeypatch, capsys):
    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(commands, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(tmp_path / "result.json", {"answer": "heat"})
    assert json.loads(capsys.readouterr().out) == {"answer": "heat"}


@pytest.mark.parametrize("options", [["--plan"], []])
def test_a_result_is_written_before_anything_is_printed(options, tmp_path, monkeypatch):
    """Whoever stops a command at a terminal that prints nothing loses no result."""

    def stopped(text, *, err=False):
        raise KeyboardInterrupt

    path = tmp_path / "result.json"
    experiment = tmp_path / "one.yaml"
    experiment.write_text("name: one\ntitle: t\nquestion: q\nrows: [{name: a, with: {method: base}}]\n")
    monkeypatch.setattr(experiments, "say", stopped)
    monkeypatch.setattr("radio_dspy.experiments.runner.run_experiment", lambda *args, **options: [])
    CliRunner().invoke(
        app, ["experiment", str(experiment), "--out", str(tmp_path / "out"), "--json", str(path), *options]
    )
    assert json.loads(path.read_text(encoding="utf-8"))


def test_a_hosted_encoder_that_an_index_names_and_a_share_of_another_machine_need_a_word(tmp_path):
    (tmp_path / "index").mkdir()
    encoder = {"backend": "litellm", "model": "openai/text-embedding-3-small", "passage_prefix": None}
    manifest = {
        "format": 1,
        "encoder": {**encoder, "max_length": None},
        "query_prefix": None,
        "files": {"index.faiss": "0", "passages.jsonl": "0"},
    }
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    for arguments, said in (
        ({"index_folder": "index"}, r"encoder openai/text-embedding-3-small"),
        ({"corpus": "\\\\host\\share\\c.jsonl"}, r"sets corpus to"),
        ({"index_folder": "//host/index"}, r"sets index_folder to"),
    ):
        with pytest.raises(SettingsError, match=rf"{said}.*add --yes"):
            check(tmp_path, **arguments)
    check(tmp_path, yes=True, index_folder="index")
    check(tmp_path, index_folder="index", encoder="all-MiniLM-L6-v2")
