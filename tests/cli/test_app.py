import contextlib
import json
import subprocess
import sys

import pytest
from dspy.utils import DummyLM
from typer.testing import CliRunner

import radio_dspy
from radio_dspy import Rerank, RetrieveRerankAnswer
from radio_dspy.cli.app import app
from radio_dspy.core.errors import DataError
from tests.stub_endpoints import KEY, StubEndpoint

COMMANDS = ["demo", "index", "questions", "compile", "train", "evaluate", "ask", "export", "report", "serve"]
COMMANDS += ["experiment"]


def radio(*arguments, check=0):
    """Run the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "radio_dspy.cli", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def files(topic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    corpus = [{"id": one.id, "contents": one.contents} for one in topic.passages]
    for name, rows in (("corpus", corpus), ("train", map(question, topic.train)), ("dev", map(question, topic.test))):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def question(example):
    metadata = {"supporting_ids": example.relevant}
    return {"id": example.id, "question": example.question, "golden_answers": example.answers, "metadata": metadata}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: radio-dspy {command}" in " ".join(shown.stdout.split())


def test_an_estimate_asks_nobody_and_writes_nothing(files, small, tmp_path):
    arguments = ["compile", "--corpus", files / "corpus.jsonl", "--train", files / "train.jsonl", "--dev"]
    arguments += [files / "dev.jsonl", "--encoder", small.name, "--reranker", small.name, "--lm", "openai/gpt-4o-mini"]
    arguments += ["--estimate", "--limit", 6, "--out", tmp_path / "a"]
    arguments += ["--run-dir", tmp_path / "run", "--json", tmp_path / "estimate.json"]
    shown = CliRunner().invoke(app, list(map(str, arguments)))
    assert shown.exit_code == 0, shown.stdout
    assert "rationales" in shown.stdout
    estimate = json.loads((tmp_path / "estimate.json").read_text())
    assert (estimate["calls"], estimate["calls_at_most"]) == (6, 12)
    assert 0 < estimate["cost"] < 0.01
    assert [path.name for path in tmp_path.iterdir()] == ["estimate.json"]


def test_a_diagnosis_trains_nothing_and_writes_its_result_alone(files, small, tmp_path):
    arguments = ["compile", "--corpus", files / "corpus.jsonl", "--train", files / "train.jsonl", "--diagnose"]
    arguments += ["--encoder", small.name, "--reranker", small.name, "--lm", "none", "--out", tmp_path / "aligned"]
    shown = CliRunner().invoke(app, list(map(str, [*arguments, "--json", tmp_path / "found.json"])))
    assert shown.exit_code == 0, shown.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["calls"], found["relevance"]) == (0, "labels")
    assert found["recommendation"] in " ".join(shown.stdout.split())
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_index_compile_evaluate_ask(files, tmp_path):
    radio("index", files / "corpus.jsonl", tmp_path / "index", "--json", tmp_path / "index.json")
    assert json.loads((tmp_path / "index.json").read_text())["passages"] == 52
    done = radio(
        "compile", "--index", tmp_path / "index", "--train", files / "train.jsonl", "--dev", files / "dev.jsonl",
        "--limit", 6, "--max-tokens", 16, "--epochs", 1, "--k", 2,
        "--out", tmp_path / "aligned", "--run-dir", tmp_path / "run", "--json", tmp_path / "compile.json",
    )  # fmt: skip
    assert "aligned reranker" in done.stdout
    report = json.loads((tmp_path / "compile.json").read_text())
    assert report["rationales"]["written"] == 6
    assert len((tmp_path / "run" / "rationales.jsonl").read_text().splitlines()) == 6
    radio(
        "evaluate", tmp_path / "aligned", "--index", tmp_path / "index", "--questions", files / "dev.jsonl",
        "--lm", "local", "--limit", 2, "--json", tmp_path / "evaluate.json",
    )  # fmt: skip
    result = json.loads((tmp_path / "evaluate.json").read_text())
    assert set(result["metrics"]) == {"first_stage", "base", "aligned"}
    assert set(result["answers"]) == set(result["base_answers"]) == {"exact_match", "sub_exact_match", "token_f1"}
    done = radio(
        "ask", tmp_path / "aligned", "Why did the dough not rise?", "--index", tmp_path / "index", "--json",
        tmp_path / "ask.json",
    )  # fmt: skip
    asked = json.loads((tmp_path / "ask.json").read_text())
    assert asked["answer"]
    assert len(asked["passages"]) == 2
    assert asked["answer"].splitlines()[0] in done.stdout


def test_rationales_that_are_there_need_no_lm(files, small, tmp_path, topic):
    rows = [json.dumps({"id": one.id, "rationale": "Heat kills yeast."}) for one in topic.train]
    (tmp_path / "rationales.jsonl").write_text("\n".join(rows))
    code, said = invoke(
        "compile", "--corpus", files / "corpus.jsonl", "--train", files / "train.jsonl", "--encoder", small.name,
        "--reranker", small.name, "--lm", "none", "--rationales", tmp_path / "rationales.jsonl", "--epochs", 1,
        "--no-gate", "--out", tmp_path / "aligned", "--json", tmp_path / "out.json",
    )  # fmt: skip
    assert code == 0, said
    report = json.loads((tmp_path / "out.json").read_text())
    counted = (report["rationales"]["given"], report["questions"]["train"])
    assert counted == (len(topic.train) - report["questions"]["judged"],) * 2


def test_a_reranker_is_trained_on_groups_without_an_lm(files, small, tmp_path, topic):
    """FlagEmbedding's lines in, a saved program out, that `evaluate` takes."""
    contents = {one.id: one.contents for one in topic.passages}
    rows = [
        {
            "query": one.question,
            "pos": [contents[key] for key in one.relevant],
            "neg": [text for key, text in contents.items() if key not in one.relevant][:5],
        }
        for one in topic.train
    ]
    radio_dspy.write_groups(radio_dspy.load_groups(rows), tmp_path / "groups.jsonl")
    arguments = ["train", tmp_path / "groups.jsonl", "--corpus", files / "corpus.jsonl", "--no-gate"]
    arguments += [
        "--encoder",
        small.name,
        "--reranker",
        small.name,
        "--epochs",
        1,
        "--max-length",
        32,
        "--out",
        tmp_path / "aligned",
        "--json",
        tmp_path / "import.json",
    ]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "import.json").read_text())
    assert report["groups"] >= report["questions"]["used"] > 0
    asked = ["evaluate", tmp_path / "aligned", "--corpus", files / "corpus.jsonl", "--questions", files / "dev.jsonl"]
    asked += ["--encoder", small.name, "--json", tmp_path / "evaluate.json"]
    done = CliRunner().invoke(app, list(map(str, asked)))
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "evaluate.json").read_text())["metrics"]
    assert metrics["aligned"] != metrics["first_stage"]
    again = CliRunner().invoke(app, list(map(str, arguments)))
    assert (again.exit_code, "already there" in again.stderr) == (2, True)


def test_a_rationale_of_an_unknown_question_is_an_error(files, tmp_path):
    (tmp_path / "rationales.jsonl").write_text('{"id": "stray", "rationale": "Heat kills yeast."}')
    code, said = invoke(
        "compile", "--corpus", files / "corpus.jsonl", "--train", files / "train.jsonl", "--lm", "none", "--rationales",
        tmp_path / "rationales.jsonl", "--out", tmp_path / "aligned",
    )  # fmt: skip
    assert (code, "a rationale of 'stray', which is no question of --train or --dev" in " ".join(said.split())) == (
        1,
        True,
    )


@pytest.mark.slow
def test_a_multiple_choice_question_is_compiled_evaluated_and_asked(files, small, tmp_path, topic):
    rows = [
        {**question(one), "choices": [one.answer, "none of this"], "golden_answers": ["A"]}
        for one in [*topic.train, *topic.test]
    ]
    (tmp_path / "choice.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first_stage = ["--corpus", files / "corpus.jsonl", "--encoder", small.name]

    def told(name, *arguments):
        code, said = invoke(*arguments, *first_stage, "--json", tmp_path / f"{name}.json")
        assert code == 0, said
        return json.loads((tmp_path / f"{name}.json").read_text())

    compiled = told(
        "compile", "compile", "--task", "choice", "--train", tmp_path / "choice.jsonl", "--reranker", small.name,
        "--lm", "none", "--tower", "query", "--epochs", 1, "--no-gate", "--out", tmp_path / "aligned",
    )  # fmt: skip
    assert compiled["gate"] is None
    judged = told(
        "evaluate", "evaluate", tmp_path / "aligned", "--questions", tmp_path / "choice.jsonl", "--lm", "local",
        "--limit", 2,
    )  # fmt: skip
    assert 0 <= judged["answers"]["accuracy"] <= 1
    choices = ["--choice", "too hot", "--choice", "too cold"]
    assert told("ask", "ask", tmp_path / "aligned", "Why did the dough not rise?", *choices)["answer"] in ("A", "B", "")


def test_hosted_encoders_and_baselines_by_name(files, tmp_path, monkeypatch, small, index):
    radio_dspy.save(RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=6), tmp_path / "program")
    with StubEndpoint() as stub:
        for provider, address in (("COHERE", stub.url), ("HOSTED_VLLM", f"{stub.url}/v1")):
            monkeypatch.setenv(f"{provider}_API_BASE", address)
            monkeypatch.setenv(f"{provider}_API_KEY", KEY)
        built = ["index", files / "corpus.jsonl", tmp_path / "index", "--encoder", "hosted_vllm/words"]
        shown = CliRunner().invoke(app, list(map(str, built)))
        assert shown.exit_code == 0, shown.output
        judged = ["evaluate", tmp_path / "program", "--index", tmp_path / "index", "--questions", files / "dev.jsonl"]
        judged += ["--baseline", "cohere/rerank-v3.5", "--baseline", small.name, "--json", tmp_path / "out.json"]
        shown = CliRunner().invoke(app, list(map(str, judged)))
        assert shown.exit_code == 0, shown.output
    assert "cohere/rerank-v3.5" in shown.stdout
    rows = json.loads((tmp_path / "out.json").read_text())["metrics"]
    assert {"first_stage", "aligned", "cohere/rerank-v3.5", small.name} <= set(rows)
    assert all(KEY.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_an_evaluation_has_a_report_that_can_be_made_again(files, tmp_path, small, index):
    radio_dspy.save(RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=6), tmp_path / "program")
    judged = ["evaluate", tmp_path / "program", "--corpus", files / "corpus.jsonl", "--encoder", small.name]
    judged += ["--questions", files / "dev.jsonl", "--report", tmp_path / "judged", "--json", tmp_path / "out.json"]
    code, said = invoke(*judged)
    assert code == 0, said
    assert f"report in {tmp_path / 'judged' / 'report.html'}" in said
    summary = json.loads((tmp_path / "judged" / "summary.json").read_text())
    means = json.loads((tmp_path / "out.json").read_text())["metrics"]
    assert summary["metrics"]["aligned"]["ndcg@10"]["mean"] == pytest.approx(means["aligned"]["ndcg@10"])
    assert summary["kind"] == "evaluation"
    assert sum(summary["effects"].values()) == summary["judged"] == 10
    (tmp_path / "judged" / "report.html").unlink()
    assert invoke("report", tmp_path / "judged", "--format", "html") == (
        0,
        f"written to {tmp_path / 'judged' / 'report.html'}\n",
    )
    assert "Questions</h2>" in (tmp_path / "judged" / "report.html").read_text()


def test_an_experiment_is_planned_run_and_gone_on_with(files, tmp_path, small):
    rows = [{"name": "base", "with": {"method": "base"}}, {"name": "words", "with": {"method": "bm25"}}]
    data = {"corpus": "corpus.jsonl", "train": "train.jsonl", "test": "dev.jsonl"}
    content = {"name": "tiny", "title": "Tiny", "question": "Does it run?", "defaults": {"data": data}, "rows": rows}
    (tmp_path / "tiny.yaml").write_text(json.dumps(content))
    sets = ["--set", f"first_stage.encoder={small.name}", "--set", f"reranker.checkpoint={small.name}"]
    arguments = ["experiment", tmp_path / "tiny.yaml", "--data", files, "--out", tmp_path / "out", *sets]
    code, said = invoke(*arguments, "--plan", "--json", tmp_path / "plan.json")
    assert code == 0, said
    assert "2 runs, 0 done." in said
    assert json.loads((tmp_path / "plan.json").read_text())["calls"]["calls"] == 0
    assert not (tmp_path / "out").exists()
    code, said = invoke(*arguments, "--rows", "base", "--records", tmp_path / "records")
    assert code == 0, said
    assert f"1 records in {tmp_path / 'records' / 'tiny'}" in " ".join(said.split())
    assert invoke(*arguments, "--rows", "base", "--records", tmp_path / "records")[1].startswith(
        "base, seed 1: there already"
    )
    code, said = invoke(*arguments, "--set", "training.los=x")
    assert code == 2
    assert "row 'base': training.los: no such key; there are averaged_runs" in " ".join(said.split())


def test_a_folder_that_is_no_run_has_no_report(tmp_path):
    code, said = invoke("report", tmp_path)
    assert code == 1
    assert f"error: {tmp_path}: not a run folder" in " ".join(said.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["index", "missing.jsonl", "out"], 1, "error: missing.jsonl: no such file."),
        (["evaluate", "gone", "--questions", "gone.jsonl", "--corpus", "c"], 1, "error: gone.jsonl: no such file."),
        (["demo", "--lm", "missing.gguf"], 1, "missing.gguf: no such file. Give a GGUF model file."),
        (["ask", "missing", "Why?"], 2, "error: Give either --index"),
        (["demo", "--lm", "locl"], 2, "error: --lm locl: no LM has this name; give `local`, `none`, a GGUF file, or a"),
        (["index", "only-one-argument"], 2, "Missing argument"),
        (["compile", "--train", "t", "--out", "o", "--sampling", "hard"], 2, "Invalid value for"),
        (["compile", "--train", "t", "--out", "o", "--batch"], 2, "error: --batch needs --run-dir"),
    ],
)
def test_errors_are_one_line_and_the_code_says_whose_they_are(arguments, code, message):
    """2: the arguments are wrong; 1: something failed."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code
    assert message in done.stderr
    if message.startswith("error"):
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_mistyped_lm_is_one_line_of_the_whole_process():
    done = radio("demo", "--lm", "locl", check=2)
    assert done.stderr.startswith("error: --lm locl: no LM has this name")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Provider List" not in done.stdout


def test_debug_shows_the_traceback():
    done = CliRunner().invoke(app, ["--debug", "index", "missing.jsonl", "out"])
    assert done.exit_code == 1
    assert isinstance(done.exception, DataError)  # which Python shows with its traceback


def test_an_interrupt_says_how_to_go_on(monkeypatch, tmp_path):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("radio_dspy.retrievers.faiss.check_source", interrupted)
    result = CliRunner().invoke(app, ["index", "corpus.jsonl", str(tmp_path)])
    assert result.exit_code == 130
    assert "with the same --run-dir to go on" in result.output


@pytest.fixture
def small_compile(files, small, tmp_path):
    """A compile that asks no LM."""
    arguments = ["compile", "--corpus", files / "corpus.jsonl", "--train", files / "train.jsonl", "--dev"]
    arguments += [files / "dev.jsonl", "--encoder", small.name, "--reranker", small.name, "--lm", "none", "--limit", 6]
    arguments += ["--epochs", 1, "--max-length", 32, "--no-gate", "--out", tmp_path / "aligned"]
    return [*map(str, arguments), "--run-dir", str(tmp_path / "runs" / "first")]


def invoke(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("more", "signals", "weight"),
    [([], {"rationale": 0.25, "answer": 0.25, "retrieval": 0.5}, 0.5), (["--rationale-weight", 0.75], None, 0.75)],
)
def test_the_teacher_is_local_presets_unless_a_weight_is_given(
    small_compile, tmp_path, monkeypatch, more, signals, weight
):
    import radio_dspy.optimizers.teaching as optimizer

    monkeypatch.setattr(optimizer, "build_groups", lambda *args, **kwargs: 1 / 0)  # what follows is not needed
    invoke(*small_compile, *more)
    settings = json.loads((tmp_path / "runs" / "first" / "manifest.json").read_text())["settings"]
    assert (settings["signals"], settings["rationale_weight"]) == (signals, weight)


def test_runs_are_listed_shown_and_gone_on_with(small_compile, tmp_path, monkeypatch):
    import radio_dspy.optimizers.teaching as optimizer

    folder = tmp_path / "runs" / "first"
    assert invoke("runs", "list", tmp_path / "runs") == (0, f"no runs in {tmp_path / 'runs'}\n")
    with monkeypatch.context() as patch:
        patch.setattr(optimizer, "build_groups", lambda *args, **kwargs: 1 / 0)
        assert invoke(*small_compile)[0] == 1
    code, listed = invoke("runs", "list", tmp_path / "runs", "--json", tmp_path / "runs.json")
    assert (code, listed.startswith("first: stopped, started 20")) == (0, True)
    assert [one["state"] for one in json.loads((tmp_path / "runs.json").read_text())["runs"]] == ["stopped"]
    code, shown = invoke("runs", "show", folder, "--json", tmp_path / "run.json")
    assert "ZeroDivisionError" in shown
    assert f"go on with: radio-dspy runs resume {folder}" in shown
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["epochs"] == 1
    monkeypatch.chdir(tmp_path)  # resume goes back to where the command was given
    code, resumed = invoke("runs", "resume", folder)
    assert code == 0, resumed
    assert (tmp_path / "aligned" / "manifest.json").is_file()
    code, listed = invoke("runs", "list", tmp_path / "runs")
    assert listed.startswith("first: finished")
    trained = len((folder / "training.jsonl").read_text().splitlines())
    code, again = invoke("runs", "resume", folder)
    assert (code, "finished; the program is in" in again) == (0, True)
    assert len((folder / "training.jsonl").read_text().splitlines()) == trained == 1


def test_a_run_folder_replaces_no_file_of_another(tmp_path, monkeypatch):
    """Whoever made the folder has written where its result goes."""
    from radio_dspy.runs.run import Run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("{}")
    Run(tmp_path / "run").begin({"epochs": 1})
    command = {
        "command": "demo",
        "folder": ".",
        "arguments": {"lm": "none", "run_dir": "run", "json_file": "mine.json"},
    }
    (tmp_path / "run" / "command.json").write_text(json.dumps(command))
    code, said = invoke("runs", "resume", "run")
    assert (code, "would replace mine.json" in " ".join(said.split())) == (2, True)
    assert (tmp_path / "mine.json").read_text() == "{}"


@pytest.mark.parametrize("command", ["show", "resume"])
def test_what_is_no_run_is_an_error(command, tmp_path):
    (tmp_path / "other").mkdir()
    code, said = invoke("runs", command, tmp_path / "other")
    assert code == 1
    assert "not a run folder" in said or "no command was kept there" in said


def test_a_run_of_a_program_is_not_resumed_by_the_command_line(tmp_path):
    from radio_dspy.runs.run import Run

    Run(tmp_path / "run").begin({"epochs": 1})
    code, said = invoke("runs", "resume", tmp_path / "run")
    assert code == 2
    assert "goes on when the same compile is called again" in " ".join(said.split())


def test_the_version_and_the_shells_completion():
    assert invoke("--version") == (0, f"radio-dspy {radio_dspy.__version__}\n")
    code, said = invoke("--help")
    assert (code, "--install-completion" in said) == (0, True)
    assert " import " not in said  # the name that train had in release 0.1 is known, and not shown
    code, said = invoke("import", "--help")
    assert (code, "Example: radio-dspy train" in " ".join(said.split())) == (0, True)


def test_a_result_on_standard_output_is_all_that_is_there(files, small, tmp_path):
    arguments = ["index", files / "corpus.jsonl", tmp_path / "index", "--encoder", small.name, "--json", "-"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["passages"] == 52
    assert "52 passages indexed" in done.stderr
    again = CliRunner().invoke(app, ["index", "none.jsonl", str(tmp_path / "other"), "--json", "-"])
    assert (again.exit_code, again.stdout) == (1, "")


class Maker(DummyLM):
    """Asks with the beginning of a passage for its last word, and knows nothing by itself."""

    def __call__(self, *args, messages=None, **kwargs):
        passage = messages[-1]["content"].partition("[[ ## passage ## ]]")[2].partition("[[ ## kind ## ]]")[0].split()
        said = {"question": " ".join(["Why", *passage[:12]]), "answer": passage[-1].strip(".")} if passage else {}
        self.answers = {"": said or {"answer": "unknown"}}
        return super().__call__(*args, messages=messages, **kwargs)


def test_questions_are_made_from_a_corpus(files, small, tmp_path, monkeypatch):
    opened = contextlib.nullcontext(Maker([]))
    monkeypatch.setattr("radio_dspy.lm.opening.open_lm", lambda *args, **settings: opened)
    arguments = ["questions", files / "corpus.jsonl", "--encoder", small.name, "--style", "fact", "-n", 10]
    arguments += ["--run-dir", tmp_path / "run", "--json", tmp_path / "said.json", "--num-threads", 1]
    arguments += ["--out", tmp_path / "train.jsonl", "--dev", tmp_path / "dev.jsonl", "--dev-share", 0.5]
    code, said = invoke(*arguments, "--max-calls", 5)
    assert (code, "max_calls=5 is reached" in " ".join(said.split())) == (1, True)
    assert not (tmp_path / "train.jsonl").exists()
    code, said = invoke(*arguments)
    assert code == 0, said
    told = json.loads((tmp_path / "said.json").read_text())
    made = [radio_dspy.load_questions(tmp_path / f"{side}.jsonl") for side in ("train", "dev")]
    assert told["counts"]["kept"] == sum(map(len, made)) == 10
    assert told["spending"]["questions"]["calls"] + 5 == told["counts"]["asked"]  # five are paid for already
    assert invoke(*arguments)[0] == 2  # the files are there
