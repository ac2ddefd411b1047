"""A marked key goes through everything that is done with an LM; then every file, log and error is searched for it."""

import json
import logging
import os
import subprocess
import sys
import traceback

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.cli.remembered import remember_command
from radio_dspy.core.errors import LanguageModelError, RadioError, SettingsError
from radio_dspy.core.redaction import redacted, told
from radio_dspy.evaluation.relevance import answer_each
from radio_dspy.lm.secrets import lms_of
from tests.fault_server import FaultServer
from tests.settings import radio_of
from tests.stub_endpoints import StubEndpoint
from tests.stub_servers import KEY

FAST = {"epochs": 1, "max_length": 32, "candidates": 8, "gate": False}


def brain(prompt):
    if "JSON object" in prompt:
        return '{"rationale": "Yeast lives in warm water.", "answer": "yeast"}'
    return "[[ ## rationale ## ]]\nYeast lives in warm water.\n\n[[ ## answer ## ]]\nyeast\n\n[[ ## completed ## ]]"


def lm_of(server, **settings):
    settings = {"num_retries": 0, "timeout": 5.0, "cache": False, **settings}
    return dspy.LM("openai/gpt-4o-mini", api_base=server.url, api_key=KEY, **settings)


def files_with(folder, text):
    """The files below a folder that hold a text; there must be files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path.relative_to(folder).as_posix() for path in files if text.encode() in path.read_bytes()]


@pytest.fixture
def student(index, small):
    return radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=5, k=3)


def test_nothing_that_is_written_holds_the_key(student, small, topic, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG, logger="radio_dspy")
    with FaultServer(brain, {"503": 0.2}, seed=4) as server, StubEndpoint() as hosted:
        lm = lm_of(server, num_retries=8)
        student.set_lm(lm)
        rival = radio.RemoteRerank("cohere/rerank-v3.5", api_base=hosted.url, api_key=KEY)
        signals = {
            radio.distillation.RationaleSimilarity(small): 0.4,
            radio.distillation.AnswerCorrectness(lm, depth=1): 0.2,
            radio.distillation.RerankerScore(rival): 0.2,
            radio.distillation.RetrievalScore(): 0.2,
        }
        optimizer = radio_of(lm, small, signals=signals, run_dir=tmp_path / "run", max_calls=500, **FAST)
        aligned = optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
        assert aligned(question="Why was the loaf flat?").answer == "yeast"
    assert {"manifest.json", "log.jsonl", "rationales.jsonl", "signals.jsonl", "report.json", "training.jsonl"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    radio.save(aligned, tmp_path / "saved")
    aligned.save(tmp_path / "state.json")
    radio.export(aligned, tmp_path / "exported")
    radio.export(
        aligned,
        tmp_path / "lines",
        "flagembedding",
        groups=radio.load_groups([{"query": "q", "pos": ["p"], "neg": ["n"]}]),
    )
    (tmp_path / "shown.txt").write_text(f"{optimizer.report}\n{aligned}\n{rival}\n{optimizer.report.as_dict()}")
    assert "run/rationales.jsonl" in files_with(tmp_path, "Yeast lives in warm water.")
    assert files_with(tmp_path, KEY) == []
    shown = capsys.readouterr()
    assert KEY not in caplog.text + shown.out + shown.err


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_no_error_holds_the_key_whatever_the_server_says(student, small, topic, tmp_path, caplog, status):
    """The server repeats the key in its 401, as OpenAI's does in part."""
    caplog.set_level(logging.DEBUG, logger="radio_dspy")
    with FaultServer(brain) as server:
        server.always = status
        lm = lm_of(server)
        for settings in ({"rationale_lm": lm}, {"signals": {radio.distillation.AnswerCorrectness(lm, depth=1): 1.0}}):
            optimizer = radio_of(encoder=small, run_dir=tmp_path / "run", **settings, **FAST)
            with pytest.raises(LanguageModelError) as caught:
                optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
            assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in caplog.text
    assert files_with(tmp_path, KEY) == []


def given(program, lm, own):
    """The program, and a context in which it asks the LM: as its own or as the configured one."""
    if own:
        program.set_lm(lm)
    return program, dspy.context(lm=None if own else lm)


@pytest.mark.parametrize("own", [True, False])
def test_nor_does_that_of_a_program_whose_lm_fails(small, index, topic, tmp_path, own):
    class Rewriting(dspy.Module):
        """Asks its LM before it searches."""

        def __init__(self):
            super().__init__()
            self.rewrite = dspy.Predict("question -> answer")
            self.retriever = index
            self.rerank = radio.Rerank(small, "bi-encoder")

        def forward(self, question):
            query = self.rewrite(question=question).answer
            return self.rerank(query=query, passages=self.retriever(query, k=5).passages)

    with FaultServer(brain) as server:
        server.always = 401
        program, asking = given(Rewriting(), lm_of(server), own)
        with asking, pytest.raises(SettingsError, match="the program failed: LMAuth") as caught:
            radio_of(encoder=small, run_dir=tmp_path / "run", **FAST).compile(
                program, trainset=topic.train[:4], valset=topic.test[:2]
            )
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert files_with(tmp_path, KEY) == []


@pytest.mark.parametrize("own", [True, False])
def test_nor_do_the_values_of_a_metric_on_a_program_that_says_what_its_lm_said(index, small, topic, tmp_path, own):
    """It was written down as the server said it."""

    class Telling(radio.RetrieveRerankAnswer):
        def forward(self, question):
            try:
                return super().forward(question)
            except dspy.LMError as error:
                raise ValueError(str(error)) from None

    student = Telling(index, radio.Rerank(small, "bi-encoder"), candidates=5, k=3)
    with FaultServer(brain) as server:
        server.always = 401
        optimizer = radio_of(encoder=small, run_dir=tmp_path / "run", metric=lambda *_: 1.0, **{**FAST, "gate": True})
        student, asking = given(student, lm_of(server), own)
        with asking, pytest.raises(RadioError, match="cannot judge: the program failed") as caught:
            optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert (tmp_path / "run" / "judged.jsonl").exists()
    assert files_with(tmp_path, KEY) == []


@pytest.mark.parametrize("own", [True, False])
def test_nor_does_the_error_of_a_gate_whose_program_cannot_reach_its_lm(student, small, topic, tmp_path, own):
    with FaultServer(brain) as server:
        server.always = 401
        student, asking = given(student, lm_of(server), own)
        optimizer = radio_of(encoder=small, run_dir=tmp_path / "run", metric=lambda *_: 1.0, **{**FAST, "gate": True})
        with asking, pytest.raises(LanguageModelError, match=r"The program's LM failed \(LMAuth") as caught:
            optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert files_with(tmp_path, KEY) == []


@pytest.mark.parametrize("where", ["a metric", "a program"])
def test_nor_does_that_of_an_lm_that_only_a_metric_or_a_program_knows(small, index, topic, tmp_path, caplog, where):
    judge_key = "sk-MARKED-JUDGE-0002"
    ask = dspy.Predict("question -> answer")

    class Asking(radio.RetrieveRerankAnswer):
        def forward(self, question):
            if where == "a program":
                with dspy.context(lm=judge):
                    question = ask(question=question).answer
            passages = self.retriever(question, k=5).passages
            return self.rerank(query=question, passages=passages)

    def metric(example, prediction, trace=None):
        with dspy.context(lm=judge):
            return float(ask(question=example.question).answer)

    student = Asking(index, radio.Rerank(small, "bi-encoder"))
    with FaultServer(brain) as server:
        server.always = 401
        judge = dspy.LM(
            "openai/gpt-4o-mini", api_base=server.url, cache=False, num_retries=0, timeout=5.0,
            extra_headers={"Authorization": f"Bearer {judge_key}"}, api_key="none",
        )  # fmt: skip
        settings = {**FAST, "gate": where == "a metric"}
        optimizer = radio_of(encoder=small, run_dir=tmp_path / "run", metric=metric, **settings)
        with pytest.raises(Exception, match=r"LMAuth|Incorrect API key") as caught:
            optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
        assert server.requests
    error, chain = caught.value, []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert judge_key not in "".join(f"{one!r}{vars(one)}" for one in chain)
    assert judge_key not in "".join(traceback.format_exception(caught.value)) + caplog.text
    assert files_with(tmp_path, judge_key) == []
    assert files_with(tmp_path, server.url.partition("//")[2]) == []


def test_an_lm_is_found_in_a_part_that_an_optimizer_has_frozen(student):
    student.set_lm(dspy.LM("openai/gpt-4o-mini", api_key=KEY))
    student._compiled = student.answer._compiled = True

    class Around(dspy.Module):
        def __init__(self):
            super().__init__()
            self.inner = student

    assert told(ValueError(f"refused {KEY}"), *lms_of(Around())) == "ValueError: refused ***"


@pytest.mark.slow
@pytest.mark.parametrize("status", [None, 401])
def test_the_command_line_with_a_key_in_the_environment(topic, small, tmp_path, status):
    for name, rows in (("train", topic.train[:6]), ("dev", topic.test)):
        lines = [json.dumps({"id": one.id, "question": one.question, "golden_answers": one.answers}) for one in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    corpus = [json.dumps({"id": one.id, "contents": one.contents}) for one in topic.passages]
    (tmp_path / "corpus.jsonl").write_text("\n".join(corpus))
    command = [sys.executable, "-m", "radio_dspy.cli", "--debug", "compile", "--lm", "openai/gpt-4o-mini"]
    command += ["--corpus", "corpus.jsonl", "--train", "train.jsonl", "--dev", "dev.jsonl", "--out", "aligned"]
    command += ["--epochs", "1", "--max-length", "32", "--no-gate", "--run-dir", "run", "--json", "result.json"]
    command += ["--encoder", small.name, "--reranker", small.name]
    with FaultServer(brain) as server:
        server.always = status
        variables = {"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": server.url, "DSPY_CACHEDIR": str(tmp_path / "cache")}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **variables})
        assert server.requests
    assert (done.returncode == 0) == (status is None), done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    assert files_with(tmp_path, KEY) == []


def test_what_is_a_key_and_what_is_no_more_than_a_word(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-environment")
    monkeypatch.setenv("OTHER_API_KEY", "none")
    text = "none: sk-environment, sk-given-by-hand, sk-given"
    assert redacted(text, "sk-given", "sk-given-by-hand", None) == "none: ***, ***, ***"
    assert told(RadioError("sk-environment\nis wrong")) == "RadioError: ***\nis wrong"


@pytest.mark.parametrize("where", ["a signal's metric", "a judged program"])
def test_nor_where_nobody_keeps_a_ledger(index, topic, where):
    """Only a metric, or a program in the middle of its work, knows of the LM that is asked."""
    key = "sk-MARKED-JUDGE-0003"

    def ask(text, golds=None):
        with dspy.context(lm=judge):
            return dspy.Predict("question -> answer")(question=text).answer

    class Asking(radio.RetrieveRerankAnswer):
        def forward(self, question):
            return super().forward(ask(question))

    with FaultServer(brain) as server, FaultServer(brain) as refuses:
        refuses.always = 401
        judge = dspy.LM("openai/j", api_base=refuses.url, api_key=key, cache=False, num_retries=0)
        program = Asking(index, radio.NoRerank(), candidates=3, k=1)
        request = radio.RankRequest("q", "Why?", (radio.Passage("a", "Yeast."),), (0.5,), answers=("yeast",))
        signal = radio.distillation.AnswerCorrectness(lm_of(server), metric=ask)
        work = {
            "a judged program": lambda: answer_each(program, topic.test[:1], lm_of(server), show_progress=False),
            "a signal's metric": lambda: signal.score([request]),
        }[where]
        with pytest.raises(LanguageModelError, match=r"Incorrect API key provided: Bearer \*\*\*") as caught:
            work()
    error, chain = caught.value, []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert key not in "".join(f"{one!r}{vars(one)}" for one in chain)


def test_a_command_that_is_kept_names_no_address(tmp_path):
    name = "huggingface/https://me:corr3ct-h0rse@host.example/v1"
    remember_command(tmp_path / "run", "compile", {"lm": name, "out": tmp_path / "out", "base": "a/b"})
    assert files_with(tmp_path, "corr3ct-h0rse") == files_with(tmp_path, "host.example") == []
    assert json.loads((tmp_path / "run" / "command.json").read_text())["arguments"]["base"] == "a/b"
