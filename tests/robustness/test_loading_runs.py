"""Run folders from a stranger, or damaged: what each file and key may be, and what a changed one gives."""

import copy
import errno
import functools
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import dspy
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from radio_dspy.optimizers import GroupFinetune
from typer.testing import CliRunner

import radio_dspy as radio
from radio_dspy.cli import app
from radio_dspy.cli import runs as run_commands
from radio_dspy.core.errors import DataError, RadioError, RunError
from radio_dspy.distillation.teacher.lm_signals import AnswerCorrectness
from radio_dspy.distillation.teacher.signals import RationaleSimilarity, RetrievalScore
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.models.shared import forget_models
from radio_dspy.reporting import plots
from radio_dspy.runs.journal import line_of
from radio_dspy.runs.records import JudgedLine, RationaleLine, RequestLine, SignalLine, TrainingLine, reader_of
from radio_dspy.runs.run import Run, look_at
from tests.conftest import ENCODER, scripted
from tests.settings import radio_of

KINDS = {
    "requests": RequestLine,
    "rationales": RationaleLine,
    "samples": RationaleLine,
    "signals": SignalLine,
    "judged": JudgedLine,
    "training": TrainingLine,
}
DEEP = functools.reduce(lambda inner, _: [inner], range(300), 1)
HOSTED = "openai/gpt-4o-mini"


# What is guarded: no socket, no process, no code of a stranger, nothing written outside one folder.

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
_FORBIDDEN = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}


class Guard:
    """Sees what Python opens, changes and reaches for, inside ``holding``."""

    def __init__(self):
        self.inside, self.reached = None, []
        sys.addaudithook(self.look)

    def look(self, event, arguments):
        if self.inside is None:
            return
        changed = ()
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & _WRITING) if mode is None else bool(set(str(mode)) & set("wax+"))
            changed = (path,) if writes and path != os.devnull else ()
        elif event in _CHANGES:
            changed = arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]
        if event in _FORBIDDEN or (event == "import" and "evil" in str(arguments[0])):
            self.refuse(event, arguments[0])
        for path in changed:
            place = Path(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else None
            if place is not None and place.is_absolute() and not any(map(place.is_relative_to, self.inside)):
                self.refuse(event, path)

    def refuse(self, event, what):
        inside, self.inside = self.inside, None
        self.reached.append((event, what))
        self.inside = inside
        raise OSError(errno.EROFS, "Read-only file system", os.fsdecode(what) if isinstance(what, bytes) else what)

    @contextmanager
    def holding(self, *inside):
        """Let nothing be written but below these folders."""
        self.inside, self.reached = inside, []
        try:
            yield
        finally:
            self.inside = None


GUARD = Guard()
CACHES = (Path(os.environ["DSPY_CACHEDIR"]),)


# A sound run with every file.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An encoder, tiny and random."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(4)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with quiet_loading():
        transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(folder / "plain")
        transformers.AutoTokenizer.from_pretrained(radio.weights(ENCODER)).save_pretrained(folder / "plain")
        modules = [Transformer(str(folder / "plain")), Pooling(16, "mean")]
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"))
    return radio.Encoder(str(folder / "model"))


class Searching(dspy.Module):
    """Words its searches itself, so that what reaches its reranker is recorded."""

    def __init__(self, index, encoder):
        super().__init__()
        self.retrieve, self.rerank = index, radio.Rerank(encoder, "bi-encoder")

    def forward(self, question):
        found = self.retrieve.search([f"cause: {question}"], 6)[0]
        return self.rerank(f"cause: {question}", found.passages)


def has_heat(example, prediction, trace=None):
    return float("heat" in prediction.passages[0].contents)


@pytest.fixture(scope="module")
def compiled(tiny, topic):
    """Compile into a folder: rationales asked twice, an LM's scores, a metric, recorded candidates."""
    index = radio.FaissRetriever.build(topic.passages, encoder=tiny)
    program = Searching(index, tiny)

    def compile_into(folder):
        lm = scripted(rationale="The reason is this: something else.", answer="heat")
        signals = {RationaleSimilarity(tiny): 0.4, AnswerCorrectness(lm, depth=1): 0.3, RetrievalScore(): 0.3}
        optimizer = radio_of(
            lm, tiny, signals=signals, metric=has_heat, run_dir=folder, epochs=1, max_length=32, candidates=6,
            per_device_train_batch_size=4, gradient_accumulation_steps=1,
        )  # fmt: skip
        with dspy.context(lm=lm):
            return optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:4])

    return compile_into


@pytest.fixture(scope="module", autouse=True)
def _without_drawings():
    """Pages without plots: drawing takes most of a report's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "drawable", lambda: False)
        yield
    forget_models()


@pytest.fixture(scope="module")
def sound(compiled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "run"
    compiled(folder)
    train = {"train": "train.jsonl", "out": "aligned", "corpus": "corpus.jsonl", "lm": "none", "run_dir": "run"}
    Run(folder).write("command", {"command": "compile", "folder": str(folder.parent), "arguments": train})
    assert {f"{name}.jsonl" for name in KINDS} <= {path.name for path in folder.iterdir()}
    return folder


@pytest.fixture
def run(sound, tmp_path):
    return copy_of(sound, tmp_path)


def slow(*row):
    """A row that compiles as another does, of another file."""
    return pytest.param(*row, marks=pytest.mark.slow)


def copy_of(sound, place):
    """A copy of the run that may be damaged, whose command is its own."""
    folder = Path(shutil.copytree(sound, place / "runs" / "run", symlinks=True))
    change(folder / "command.json", folder=str(folder.parent))
    return folder


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_lines(path, changes, *, signed=True):
    """Change every record of a journal; ``...`` takes a key away."""
    lines = []
    for text in path.read_text().splitlines():
        record = {**json.loads(text), **changes}
        record = {key: value for key, value in record.items() if value is not ... and key != "crc"}
        lines.append(line_of(record) if signed else json.dumps(record).encode() + b"\n")
    path.write_bytes(b"".join(lines))


def set_in(path, place, value):
    """Set a value inside a JSON file, by keys and positions with dots."""
    found = json.loads(path.read_text())
    *above, last = [int(one) if one.isdigit() else one for one in place.split(".")]
    functools.reduce(lambda inner, one: inner[one], above, found)[last] = value
    path.write_text(json.dumps(found))


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def invoke(*arguments):
    """Run the command line; an error of another class fails the test."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 1, 2), done.output
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def resumed(monkeypatch):
    """What ``runs resume`` would run, in place of running it."""
    ran = []
    for name in ("compile_", "demo"):
        own = getattr(run_commands, name)
        monkeypatch.setattr(run_commands, name, functools.wraps(own)(lambda **given: ran.append(given)))
    monkeypatch.chdir(Path.cwd())  # resume goes where the command was given
    return ran


# Journals: (file, key, value, what is said). Without a value the key is taken away.
LINES = [
    ("requests", "id", ..., "id: Field required"),
    ("requests", "id", [1], "id: Input should be a valid string"),
    ("requests", "key", None, "key"),
    ("requests", "calls", ..., "calls"),
    ("requests", "calls", "x", "calls"),
    ("requests", "calls", [{"seat": -1, "query": "x", "named": True, "passages": []}], "calls.0.seat"),
    ("requests", "calls", [{"seat": 0, "query": 1, "named": True, "passages": []}], "calls.0.query"),
    ("requests", "calls", [{"seat": 0, "query": "x", "named": True, "passages": [["p"]]}], "calls.0.passages.0"),
    (
        "requests",
        "calls",
        [{"seat": 0, "query": "x", "named": True, "passages": [["p", 1, ""]]}],
        "passages.0: a passage is",
    ),
    ("requests", "error", ..., "error"),
    ("requests", "error", {"a": 1}, "error"),
    ("rationales", "id", 5, "id"),
    ("rationales", "rationale", {"a": 1}, "rationale"),
    ("rationales", "rationale", ..., "rationale"),
    ("rationales", "key", ..., "key"),
    ("rationales", "retried", "no", "retried"),
    ("rationales", "problem", [], "problem"),
    ("samples", "key", ..., "key"),
    ("samples", "rationale", ..., "rationale"),
    ("signals", "key", [1], "key"),
    ("signals", "scores", ..., "scores"),
    ("signals", "scores", {"a": 1}, "scores"),
    ("signals", "scores", ["1"], "scores.0"),
    ("signals", "scores", [1e308], "scores.0"),
    ("signals", "scores", DEEP, "scores.0"),
    ("judged", "key", ..., "key"),
    ("judged", "value", None, "value"),
    ("judged", "value", "1", "value"),
    ("judged", "value", 1e308, "value"),
    ("judged", "value", 10**400, "value"),
    ("judged", "failure", ..., "failure"),
    ("training", "checkpoint", ..., "checkpoint"),
    ("training", "checkpoint", ["reranker-0123456789abcdef"], "checkpoint"),
    ("training", "losses", 1e308, "losses"),
    ("training", "losses", ["x"], "losses.0"),
    ("training", "seconds", "x", "seconds"),
    ("training", "stopped", None, "stopped"),
]


@pytest.mark.parametrize(("name", "key", "value", "said"), LINES, ids=lambda one: repr(one)[:40])
def test_a_line_that_no_run_writes(run, name, key, value, said):
    change_lines(run / f"{name}.jsonl", {key: value})
    with pytest.raises(DataError, match=rf"{name}\.jsonl:1: no record of this file .*{said}.*remove the line"):
        list(Run(run).records(name, reader_of(KINDS[name])))


@pytest.mark.parametrize("name", KINDS)
def test_lines_of_earlier_releases_are_read(run, name):
    """They have no checksum, and a later release may add keys."""
    before = Run(run).read_records(name)
    change_lines(run / f"{name}.jsonl", {"new": {"key": 1}}, signed=False)
    found = list(Run(run).records(name, reader_of(KINDS[name])))
    assert [one["key"] for one in found] == [one["key"] for one in before]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("requests", "calls", "x"),
        slow("samples", "rationale", ...),
        slow("rationales", "rationale", {"a": 1}),
        slow("signals", "scores", "x"),
        ("judged", "value", 1e308),
        slow("training", "losses", "x"),
    ],
)
def test_a_compile_ends_at_such_a_line_and_loses_nothing(run, compiled, name, key, value):
    change_lines(run / f"{name}.jsonl", {key: value})
    before = (run / f"{name}.jsonl").read_bytes()
    with pytest.raises(DataError, match=rf"{name}\.jsonl:1: no record"):
        compiled(run)
    assert (run / f"{name}.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("signals", {"scores": [0.5, 0.5, 0.5]}),
        slow("signals", {"scores": []}),
        ("requests", {"calls": [{"seat": 7, "query": "x", "named": True, "passages": []}]}),
        slow("rationales", {"key": "another"}),
        slow("judged", {"key": "another"}),
        slow("training", {"checkpoint": "../../outside"}),
        slow("training", {"checkpoint": "reranker-0123456789abcdef"}),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_done_again(run, compiled, name, changes):
    change_lines(run / f"{name}.jsonl", changes)
    before = len((run / f"{name}.jsonl").read_bytes().splitlines())
    compiled(run)
    assert len((run / f"{name}.jsonl").read_bytes().splitlines()) > before


# manifest.json: (key, value, error and what it says; None where the run goes on).
MANIFEST = [
    ("format", "1", (DataError, "'format' must be a number")),
    ("format", True, (DataError, "'format' must be a number")),
    ("format", 10**400, (RunError, "Upgrade")),
    ("kind", "another", (RunError, "not a run's")),
    ("kind", ["radio-dspy run"], (RunError, "not a run's")),
    ("settings", [], (DataError, "'settings' must be an object")),
    ("settings", None, None),
    ("settings", {"\x1b[2J\ud800": DEEP}, None),
    ("optimizer", None, (RunError, "a run of None")),
    ("optimizer", "\x1b[2J", (RunError, r"a run of \\x1b")),
    ("release", None, None),
    ("release", DEEP, None),
    ("unheard_of", {"a": 1}, None),
]


@pytest.mark.parametrize(("key", "value", "error"), MANIFEST, ids=lambda one: repr(one)[:40])
def test_a_changed_manifest(run, key, value, error):
    change(run / "manifest.json", **{key: value})
    kept, described = Run(run), json.loads((run / "manifest.json").read_text())["settings"]
    if error is None:
        with kept.exclusive():
            kept.begin(described or {})
        return
    before = everything(run)
    with pytest.raises(error[0], match=error[1]), kept.exclusive():
        pass
    assert everything(run) == before


def test_a_manifest_without_its_release_goes_on(run):
    found = json.loads((run / "manifest.json").read_text())
    del found["release"]
    (run / "manifest.json").write_text(json.dumps(found))
    assert Run(run).begin(found["settings"]) == {}
    assert json.loads((run / "manifest.json").read_text())["release"]


NO_JSON = {
    "empty": b"",
    "cut off": b'{"kind": "radio-dspy run", "form',
    "list": b"[]",
    "null": b"null",
    "bytes": b'{"kind": "\xe9"}',
    "utf-16": '{"kind": "radio-dspy run"}'.encode("utf-16"),
    "zeros": b"\0" * 500,
    "deep": b'{"a":' + b"[" * 100_000,
    "NaN": b'{"kind": "radio-dspy run", "format": 1, "settings": {"a": NaN}}',
    "1e999": b'{"kind": "radio-dspy run", "format": 1, "settings": {"a": 1e999}}',
    "long number": b'{"kind": "radio-dspy run", "format": 1, "settings": {"a": ' + b"9" * 5000 + b"}}",
}


@pytest.mark.parametrize("name", ["manifest.json", "report.json", "command.json", "log.jsonl", "comparison.jsonl"])
@pytest.mark.parametrize(
    "damage", ["cut off", "deep", "1e999", *map(slow, sorted({*NO_JSON} - {"cut off", "deep", "1e999"}))]
)
def test_files_that_are_no_json(run, resumed, name, damage):
    (run / name).write_bytes(NO_JSON[damage] + (b"\n{}\n" if name.endswith("l") else b""))
    held = {path for path in run.iterdir() if path.suffix in (".json", ".jsonl") and path.name != "summary.json"}
    before = {path: path.read_bytes() for path in held}
    codes = [
        invoke("runs", "list", run.parent, "--json", run.parent / "list.json"),
        invoke("runs", "show", run, "--json", run.parent / "show.json"),
        invoke("report", run),
        invoke("runs", "resume", run),
    ]
    assert any(name in said or "no record" in said for code, said in codes if code) or damage == "empty"
    assert codes[0][0] == 0  # a damaged run does not hide the others
    assert {path: path.read_bytes() for path in held} == before


# report.json and comparison.jsonl: (file, place, value).
REPORTS = [
    ("report.json", "metrics.base.ndcg@10", 10**400),
    ("report.json", "metrics", 5),
    ("report.json", "questions.judged", None),
    ("report.json", "training", {}),
    ("report.json", "training.losses", 1e308),
    ("report.json", "training.updates", "x"),
    ("report.json", "gate.candidates", "x"),
    ("report.json", "gate.candidates.0.mean", "x"),
    ("report.json", "gate.candidates.0.low", 10**400),
    ("report.json", "seconds.training", "x"),
    ("report.json", "spending.rationales.calls", "x"),
    ("report.json", "unheard_of", 1),
    ("comparison.jsonl", "metrics", {"base": {"ndcg@10": 10**400}, "aligned": {"ndcg@10": 1}}),
    ("comparison.jsonl", "metrics", {"base": {"ndcg@10": "x"}}),
    ("comparison.jsonl", "rankings", 5),
    ("comparison.jsonl", "passages", ...),
]


@pytest.mark.parametrize(("name", "place", "value"), REPORTS, ids=lambda one: repr(one)[:40])
def test_a_report_of_another_shape(run, name, place, value):
    if name.endswith("l"):
        change_lines(run / name, {place: value}, signed=False)
    else:
        set_in(run / name, place, value)
    before = everything(run)
    code, said = invoke("report", run)
    assert (code, "none that this release reads" in said and "again" in said) == (1, True), said
    assert everything(run) == before


@pytest.mark.parametrize(
    ("place", "value"),
    [("run_dir", "/etc"), ("reranker", "\x1b[2J\ud800<script>"), ("gate.sentence", "\ud800"), ("training.stopped", [])],
)
def test_a_report_whose_texts_are_odd_is_shown(run, place, value):
    set_in(run / "report.json", place, value)
    assert invoke("report", run)[0] == 0
    assert "<script>\x1b" not in (run / "report.html").read_text()


EVALUATION = dict.fromkeys(("release", "written", "decision", "before", "after", "relevance"), "x")


@pytest.mark.parametrize("answers", [{"base": {"em": "high"}}, {"base": 5}, {"base": {"em": 10**400}}, 5], ids=repr)
def test_an_evaluation_of_another_shape(run, answers):
    (run / "report.json").write_text(
        json.dumps({**EVALUATION, "kind": "evaluation", "judged": 4, "metrics": {}, "answers": answers})
    )
    code, said = invoke("report", run)
    assert (code, "none that this release reads" in said) == (1, True), said


# command.json: (option, value, what is said); ``...`` takes it away.
REFUSED = [
    ("train", ..., "has no ['train']"),
    ("out", None, "sets out to None"),
    ("run_dir", ..., "another folder's"),
    ("run_dir", "a\0b", "sets run_dir"),
    ("run_dir", "elsewhere", "another folder's"),
    ("train", "a\0b", "sets train"),
    ("out", "\ud800", "sets out"),
    ("corpus", "//host/share", "an address (corpus)"),
    ("index_folder", "\\\\host\\share", "an address (index_folder)"),
    ("limit", -3, "sets limit to -3"),
    ("limit", 0, "sets limit to 0"),
    ("epochs", 1.5, "sets epochs"),
    ("gate", "yes", "sets gate"),
    ("max_length", 10**30, "sets max_length"),
    ("learning_rate", 10**400, "sets learning_rate"),
    ("evil", 1, "unknown options ['evil']"),
    ("\x1b[2J", 1, r"unknown options ['\x1b[2J']"),
    ("lm", "huggingface/http://10.0.0.1/x", "an address (lm)"),
    ("encoder", "openai/localhost:8000", "an address (encoder)"),
    ("lm", "//host/x.gguf", "an address (lm)"),  # a share of another machine, to Windows
    ("lm", "\\\\host\\x.gguf", "an address (lm)"),
    ("encoder", "//host/share/encoder", "an address (encoder)"),
    ("reranker", "\\\\host\\weights", "an address (reranker)"),
    ("lm", HOSTED, "add --yes"),
    ("encoder", "openai/text-embedding-3-small", "add --yes"),
    ("json_file", "result.json", "would replace"),
    ("json_file", "run/manifest.json", "would replace"),
]


@pytest.mark.parametrize(("option", "value", "said"), REFUSED, ids=lambda one: repr(one)[:40])
def test_a_command_that_is_not_run(run, resumed, option, value, said):
    (run.parent / "result.json").write_text("mine")
    for name in ("huggingface/http:/10.0.0.1/x", HOSTED, "openai/localhost:8000"):  # a folder of its name is no excuse
        if option == "lm":
            (run.parent / name).mkdir(parents=True)
    arguments = {**json.loads((run / "command.json").read_text())["arguments"], option: value}
    change(run / "command.json", arguments={key: one for key, one in arguments.items() if one is not ...})
    before = everything(run.parent)
    code, shown = invoke("runs", "resume", run)
    assert (code, resumed) == (2, [])
    assert said in shown, shown
    assert everything(run.parent) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("command", ["compile"]),
        ("command", "experiment"),
        ("arguments", []),
        ("folder", "a\0b"),
        ("folder", "\ud800"),
        ("folder", "//host/share"),
    ],
)
def test_a_command_file_of_another_shape(run, resumed, key, value):
    change(run / "command.json", **{key: value})
    code, said = invoke("runs", "resume", run)
    expected = "on another machine" if str(value).startswith("//") else "no command of this release"
    assert (code, expected in said, resumed) == (2, True, [])


@pytest.mark.parametrize(
    "changes",
    [{}, {"limit": 5, "json_file": "new.json", "encoder": "model"}, {"lm": "local"}, {"lm": "m.gguf"}],
    ids=repr,
)
def test_a_command_that_is_run(run, resumed, changes):
    (run.parent / "model").mkdir()
    saved = json.loads((run / "command.json").read_text())
    change(run / "command.json", arguments={**saved["arguments"], **changes})
    assert invoke("runs", "resume", run)[0] == 0
    assert {name: str(resumed[0][name]) for name in changes} == {name: str(one) for name, one in changes.items()}


def test_an_index_that_asks_a_hosted_encoder_needs_the_users_word(run, resumed, tiny, topic):
    radio.FaissRetriever.build(topic.passages[:3], encoder=tiny).save(run.parent / "index")
    hosted = dict.fromkeys(("dimensions", "passage_prefix", "max_length"))
    hosted |= {"backend": "litellm", "model": "openai/text-embedding-3-small", "passage_options": {}}
    change(run.parent / "index" / "manifest.json", encoder=hosted)
    saved = json.loads((run / "command.json").read_text())
    change(run / "command.json", arguments={**saved["arguments"], "corpus": None, "index_folder": "index"})
    code, said = invoke("runs", "resume", run)
    assert (code, resumed, "index's encoder openai/text-embedding-3-small" in said) == (2, [], True)
    assert (invoke("runs", "resume", run, "--yes")[0], len(resumed)) == (0, 1)


# The folder as a whole.


def test_one_damaged_run_among_good_ones(run, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(run, run.parent / name)
    (run / "log.jsonl").write_bytes(b"nonsense\n" + (run / "log.jsonl").read_bytes())
    (run.parent / "b" / "manifest.json").write_bytes(b"\0" * 40)
    (run.parent / "other").mkdir()
    (run.parent / "file").write_text("x")
    odd = run.parent / os.fsdecode(b"caf\xe9\x1b[2J")
    shutil.copytree(run.parent / "a", odd)
    code, said = invoke("runs", "list", run.parent, "--json", tmp_path / "list.json")
    assert (code, "run: cannot be read" in said, "log.jsonl:1: not a whole record" in said) == (0, True, True)
    assert "b: cannot be read" in said
    assert "other:" not in said
    assert "\x1b" not in said
    listed = {Path(one["path"]).name: one["state"] for one in json.loads((tmp_path / "list.json").read_text())["runs"]}
    assert listed == {"a": "finished", odd.name.replace("\udce9", "?"): "finished"}


def test_looking_at_runs_on_a_read_only_disk(run):
    before = everything(run)
    with GUARD.holding():
        listed, shown = invoke("runs", "list", run.parent), invoke("runs", "show", run)
        code, said = invoke("report", run)
    assert (listed[0], shown[0], "finished" in listed[1], "finished" in shown[1]) == (0, 0, True, True)
    assert (code, "Read-only file system" in said) == (1, True)
    assert everything(run) == before
    written = {Path(os.fsdecode(path)).parent for event, path in GUARD.reached if event == "open"}
    assert written <= {run, Path(tempfile.gettempdir())}  # of a report, and of the look for a place for temporary files


def test_a_compile_on_a_read_only_disk(run, compiled):
    before = everything(run)
    with GUARD.holding(*CACHES), pytest.raises(RunError, match=r"cannot be written \(Read-only file system\)"):
        compiled(run)
    assert everything(run) == before


def test_a_folder_and_files_of_another_user(run, monkeypatch):
    """Whoever may write everywhere, as root may, sees it by these stand-ins alone."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_, **__: False)
        with pytest.raises(RunError, match="run: cannot be written to; take another run_dir"):
            Run(run).check()

    whole = Path.open

    def denied(self, *given, **named):
        if self.name == "run.lock":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return whole(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        with pytest.raises(RunError, match=r"run\.lock: Permission denied. Is it another user's"):
            Run(run).remember_command({})


def test_an_error_of_the_users_own_files_stays_their_own(tmp_path):
    own = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/a.txt")
    with pytest.raises(PermissionError), Run(tmp_path / "run").exclusive():
        raise own


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, 5, "\ud800"], ids=["nul", "long", "number", "half"])
def test_a_run_dir_that_is_no_name(name):
    with pytest.raises(RadioError, match=r"cannot be a folder|leads nowhere"):
        Run(name)


@pytest.mark.parametrize("name", ["rationales.jsonl", "run.lock", "manifest.json", "report.json", "log.jsonl"])
@pytest.mark.parametrize("made", ["link", "broken link", "folder", "pipe"])
def test_what_is_no_file_of_a_run(run, compiled, name, made):
    outside = run.parent / "outside"
    (run / name).rename(outside)
    if made == "folder":
        (run / name).mkdir()
    elif made == "pipe":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(outside if made == "link" else run.parent / "nothing")
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=rf"{name}: a link or no file"):
        compiled(run)
    invoke("runs", "list", run.parent)
    invoke("runs", "show", run)
    assert {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()} == before


def test_a_report_does_not_write_through_a_link(run):
    outside = run.parent / "outside.html"
    outside.write_text("mine")
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(outside)
    assert invoke("report", run)[0] == 2
    assert outside.read_text() == "mine"


def test_a_checkpoint_whose_files_are_others(run, compiled):
    kept = next(path for path in run.glob("reranker-*") if path.name in (run / "training.jsonl").read_text())
    (kept / "config.json").write_text((kept / "config.json").read_text() + " ")
    with pytest.raises(RunError, match="not those that training wrote"):
        compiled(run)


@pytest.mark.slow
def test_what_only_looks_like_a_training_checkpoint_stays(run, compiled):
    mine = run / f"training-{'a' * 16}-3" / "model.safetensors" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (mine.parent.parent / "state.json").write_text("{}")
    change_lines(run / "training.jsonl", {"key": "another"})
    compiled(run)
    assert mine.read_text() == "mine"


def test_a_run_that_is_running(run, compiled, resumed):
    with Run(run).exclusive():
        assert look_at(run).state == "running"
        assert "running" in invoke("runs", "list", run.parent)[1]
        assert "running" in invoke("runs", "show", run)[1]
        with pytest.raises(RunError, match="in use by process"):
            compiled(run)


@pytest.mark.parametrize("name", ["all", *map(slow, ["log.jsonl", "report.json", "run.lock", "groups.jsonl"])])
def test_a_run_that_lost_files_goes_on(run, compiled, name):
    """Whatever a kill or a careless copy left out: what is there is used, and what was paid for stays."""
    if name == "all":  # names prove nothing where the manifest is missing; records and checkpoints do
        (run / "manifest.json").unlink()
        before = everything(run)
        with pytest.raises(RunError, match="If it is a run that lost its manifest"):
            compiled(run)
        assert everything(run) == before
    for path in run.iterdir() if name == "all" else [run / name]:
        if path.is_file() and path.name != "rationales.jsonl":
            path.unlink()
    rationales = (run / "rationales.jsonl").read_bytes()
    compiled(run)
    assert (run / "rationales.jsonl").read_bytes().startswith(rationales)
    assert look_at(run).state == "finished"


@pytest.mark.parametrize("name", ["requests", *map(slow, [*KINDS, "log"][1:])])
def test_a_journal_with_half_a_line(run, compiled, name):
    path = run / f"{name}.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rstrip(b"\n").rfind(b"\n") + 20])
    assert invoke("runs", "show", run)[0] == 0
    compiled(run)
    assert len(Run(run).read_records(name)) >= whole.count(b"\n") - (name == "samples")  # its question was asked twice


def test_a_run_of_radio_is_not_taken_by_group_finetune(run, tiny):
    rows = [{"query": f"why is jug {n} cool?", "pos": ["Vapour."], "neg": ["Ice.", "Red."]} for n in range(4)]
    groups = radio.load_groups(rows)
    optimizer = GroupFinetune(TrainingSettings(num_train_epochs=1, max_length=32), run_dir=run)
    before = everything(run)
    with pytest.raises(RunError, match="a run of RADIO, whose report GroupFinetune would replace"):
        optimizer.compile(radio.Rerank(tiny, "bi-encoder"), trainset=groups[:2], valset=groups[2:])
    (run / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read"):
        optimizer.compile(radio.Rerank(tiny, "bi-encoder"), trainset=groups[:2], valset=groups[2:])
    (run / "manifest.json").write_bytes(before[run / "manifest.json"])
    assert everything(run) == before


def test_groups_whose_ids_are_unknown(run, topic):
    assert radio.load_groups(run / "groups.jsonl", topic.passages)
    with pytest.raises(DataError, match=r"groups\.jsonl:1"):
        radio.load_groups(run / "groups.jsonl", topic.passages[:1])


# Fuzzing: whatever the files say, nothing is fetched, run, or written outside the folder.
JSON_FILES = ["manifest.json", "command.json", "report.json", "run.lock", "summary.json"]
WORDS = st.sampled_from(
    [
        "/etc/hosts",
        "../x",
        "evil.Evil",
        HOSTED,
        "huggingface/http://10.0.0.1/x",
        "//host/x",
        "\x1b[2J",
        "a\0b",
        "\ud800",
    ]
)
KEYS = st.sampled_from(
    ["id", "key", "calls", "error", "rationale", "scores", "value", "failure", "checkpoint", "losses", "seconds",
     "stopped", "event", "time", "settings", "stage", "kind", "format", "optimizer", "release", "command", "folder",
     "arguments", "metrics", "questions", "training", "gate", "rationales", "spending", "rankings", "passages",
     "others", "left_out", "process", "lm", "out", "limit", "json_file", "index_folder", "reranker", "run_dir"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2**40)
    | st.sampled_from([10**400, 1e308, -1e308, 5e-324])
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=6)
    | WORDS
    | st.just(DEEP),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS | WORDS | st.text(max_size=6), inner, max_size=2),
    max_leaves=5,
)
FILES = st.sampled_from([*JSON_FILES, *(f"{name}.jsonl" for name in [*KINDS, "log", "comparison", "groups"])])
CHANGES = st.dictionaries(KEYS | st.text(max_size=6), VALUES, min_size=1, max_size=3)
RELAXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
NAMES = st.sampled_from(
    [
        ".training-settings/state.json", f"training-{'0f' * 8}-1/state.json", f".training-{'0f' * 16}/reranker/a",
        f".log.jsonl.{'0f' * 16}", f".manifest.json.{'0f' * 16}", f"reranker-{'0f' * 8}/model.safetensors",
        "rationales.jsonl", "log.jsonl", "groups.jsonl", "run.lock", "report.html", "command.json", "thesis.md",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(KEYS | st.sampled_from(["process", "host", "since"]), VALUES, max_size=3).map(
        lambda found: json.dumps(found).encode()
    ),
)


def unproved(files):
    """A folder without a manifest whose files have names of ours: taken as it is, or refused and left as it is."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)
        before = everything(folder)
        try:
            with GUARD.holding(folder), Run(folder).exclusive():
                pass
        except RadioError:
            assert everything(folder) == before
        else:
            taken = {one.name for one in before}  # a lock of nobody, and the manifest that a killed run had begun
            assert taken <= {"run.lock", f".manifest.json.{'0f' * 16}"}, before


@settings(max_examples=100, deadline=None, suppress_health_check=RELAXED)
@given(files=st.dictionaries(NAMES, TEXTS, min_size=1, max_size=3))
def test_any_folder_that_proves_nothing(files):
    unproved(files)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=RELAXED)
@given(files=st.dictionaries(NAMES, TEXTS, min_size=1, max_size=3))
def test_any_folder_that_proves_nothing_at_length(files):
    unproved(files)


def merged(found, changes):
    """The changes, inside the objects that are there already as well: most keys that matter lie below the top."""
    for name, value in changes.items():
        found[name] = (
            {**found[name], **value} if isinstance(value, dict) and isinstance(found.get(name), dict) else value
        )
    return found


def fuzzed(sound, compiled, resumed, name, changes, damage, compiles=True):
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary).resolve()
        run = copy_of(sound, place)
        resumed.clear()
        path = run / name
        if name.endswith("l"):
            first, *others = path.read_bytes().splitlines(keepends=True)
            record = merged({key: one for key, one in json.loads(first).items() if key != "crc"}, copy.copy(changes))
            path.write_bytes(json.dumps(record).encode() + b"\n" + b"".join(others))
        else:
            path.write_text(json.dumps(merged(json.loads(path.read_text()), copy.copy(changes))))
        if damage:
            path.write_bytes(path.read_bytes()[: -min(damage, path.stat().st_size)])
        here = Path.cwd()
        with GUARD.holding(run, *CACHES):
            for arguments in (("runs", "list", run.parent), ("runs", "show", run), ("report", run)):
                invoke(*arguments)
            invoke("runs", "resume", run)
            os.chdir(here)
            if compiles and (name.removesuffix(".jsonl") in KINDS or name in ("manifest.json", "run.lock")):
                with suppress(RadioError):
                    compiled(run)
        assert not GUARD.reached
        assert sorted(one.name for one in place.rglob("*") if not one.is_relative_to(run)) == ["runs"]
        for given_ in resumed:
            assert given_.get("lm", "local") in ("none", "local") or given_["lm"].endswith(".gguf")
            assert not (given_.get("json_file") and given_["json_file"].exists())


@settings(max_examples=24, deadline=None, suppress_health_check=RELAXED)
@given(name=FILES, changes=CHANGES, damage=st.sampled_from([0, 0, 0, 1, 30]), compiles=st.sampled_from([False, True]))
def test_any_run_folder(sound, compiled, resumed, name, changes, damage, compiles):
    fuzzed(sound, compiled, resumed, name, changes, damage, compiles)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=2000, deadline=None, suppress_health_check=RELAXED)
@given(name=FILES, changes=CHANGES, damage=st.sampled_from([0, 0, 0, 1, 30, 300]))
def test_any_run_folder_at_length(sound, compiled, resumed, name, changes, damage):
    fuzzed(sound, compiled, resumed, name, changes, damage)
