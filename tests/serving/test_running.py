"""The command in a process of its own: signals, workers, what it says when it cannot start."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from radio_dspy import Rerank, RetrieveRerankAnswer, save
from radio_dspy.cli.app import app
from radio_dspy.retrievers import FaissRetriever
from radio_dspy.serving.running import _announce_first

BODY = {"query": "Why did the dough not rise?", "documents": ["Yeast dies in hot water.", "Ice floats."] * 30}


@pytest.fixture(scope="module")
def folders(saved, index, small, tmp_path_factory):
    """A saved program, its index, and the index's encoder."""
    folder = tmp_path_factory.mktemp("running")
    index.save(folder / "index")
    shutil.copytree(saved, folder / "aligned")
    return folder / "aligned", folder / "index", small.name


@contextlib.contextmanager
def command(folders, *arguments):
    """The command, once it is ready; gives its process and address."""
    program, index, encoder = folders
    arguments = ["--encoder", encoder, *arguments]
    line = [sys.executable, "-m", "radio_dspy.cli", "serve", program, "--index", index, "--port", 0, *arguments]
    process = subprocess.Popen(list(map(str, line)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        assert said.startswith("serving at http://127.0.0.1:"), (said, process.stderr.read() if not said else "")
        url = said.split()[-1]
        assert httpx.get(f"{url}/ready", timeout=120).status_code == 200
        yield process, url
    finally:
        process.terminate()
        process.wait(60)


async def asked(url, count, act):
    """The statuses of many requests; something is done when all have reached the server."""
    ended = []
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def one():
            try:
                ended.append((await client.post("/v1/rerank", json=BODY)).status_code)
            except httpx.TransportError as error:
                ended.append(type(error).__name__)

        asking = asyncio.gather(*(one() for _ in range(count)))
        under_way = 0
        while len(ended) + under_way < count:
            said = (await client.get("/metrics")).text
            under_way = float(re.search(r"^radio_dspy_waiting (\S+)", said, re.MULTILINE)[1]) - 1  # but for this one
        act()
        await asking
        return ended


def wait_for_workers(process, count=2):
    """The processes that serve, once there are so many and each has its model and listens."""
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        children = [one for one in psutil.Process(process.pid).children() if one.status() != psutil.STATUS_ZOMBIE]
        workers = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
        if len(workers) == count and all(one.net_connections("tcp") for one in workers):
            return workers
        time.sleep(0.2)
    raise AssertionError(f"not {count} workers listen")


@pytest.mark.slow
def test_what_is_under_way_ends_at_sigterm_and_nothing_new_begins(folders):
    with command(folders) as (process, url):
        statuses = asyncio.run(asked(url, 8, lambda: process.send_signal(signal.SIGTERM)))
        assert statuses == [200] * 8
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_sighup_takes_over_another_program(folders, small, tmp_path):
    program, index, encoder = folders
    shutil.copytree(program, tmp_path / "aligned")
    with command((tmp_path / "aligned", index, encoder)) as (process, url):
        assert httpx.get(f"{url}/version").json()["k"] == 3
        shutil.rmtree(tmp_path / "aligned")
        retriever = FaissRetriever.load(index, encoder=small)
        save(RetrieveRerankAnswer(retriever, Rerank(small, "bi-encoder"), candidates=5, k=2), tmp_path / "aligned")
        statuses = asyncio.run(asked(url, 30, lambda: process.send_signal(signal.SIGHUP)))
        assert statuses == [200] * 30
        ends = time.monotonic() + 120
        while httpx.get(f"{url}/version").json()["k"] != 2:
            assert time.monotonic() < ends
            time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_other_answers(folders):
    with command(folders, "--workers", 2) as (process, url):
        killed, other = wait_for_workers(process)
        statuses = asyncio.run(asked(url, 16, lambda: os.kill(killed.pid, signal.SIGKILL)))
        # Which worker takes a connection is the system's choice: the killed one may have held all of them, or none.
        assert set(statuses) <= {200, "ReadError", "RemoteProtocolError", "WriteError"}
        assert [httpx.post(f"{url}/v1/rerank", json=BODY, timeout=60).status_code for _ in range(5)] == [200] * 5
        assert other.is_running()
        assert killed.pid not in {one.pid for one in wait_for_workers(process)}
        process.send_signal(signal.SIGHUP)
        counts = httpx.get(f"{url}/metrics", timeout=60).text
        assert 'route="/v1/rerank",status="200"' in counts
        assert "radio_dspy_waiting 1.0" in counts  # this request: what the killed one was answering is no more
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_workers_that_cannot_start_are_not_started_again(folders):
    program, index, _ = folders  # the index's encoder is no name of the hub
    line = [sys.executable, "-m", "radio_dspy.cli", "serve", program, "--index", index, "--port", 0, "--workers", 2]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: A worker could not start" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_signals_that_come_early_or_twice(folders):
    program, index, encoder = folders
    line = [sys.executable, "-m", "radio_dspy.cli", "serve", program, "--index", index, "--port", 0]
    line = list(map(str, [*line, "--encoder", encoder]))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line[line.index("--port") + 1] = str(port)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not any(one.laddr.port == port for one in psutil.Process(process.pid).net_connections("tcp")):
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)  # it is bound, and opens the program
        assert process.stdout.readline().startswith("serving at")
        ends = time.monotonic() + 60
        while "radio_dspy_reloads_total 1.0" not in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text:
            assert time.monotonic() < ends
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
        assert (process.returncode, said) == (0, "")


def test_a_proxy_of_the_environment_is_not_asked_whether_a_worker_answers(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    said = []
    _announce_first(server.url, said.append)
    assert said == [server.url]


def run(*arguments):
    return CliRunner().invoke(app, ["serve", *map(str, arguments)])


def test_what_cannot_be_served_is_one_line(folders, tmp_path):
    program, index, _ = folders
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in [
            ((tmp_path, "--index", index), "not a folder that radio_dspy.save wrote"),
            ((program,), "Give either --index"),
            ((index, "--index", index), "give the folder that `radio-dspy compile`"),
            ((program, "--index", program), "give the folder of an index"),
            ((program, "--index", index, "--encoder", "no/such-encoder"), "error: no/such-encoder: cannot be loaded"),
            ((program, "--index", index, "--port", port), "cannot listen (Address already in use)"),
            ((program, "--index", index, "--max-texts", 0), "max_texts must be at least 1"),
            ((program, "--index", index, "--origin", "app"), "as in https://app.example"),
            ((program, "--index", index, "--api-key-file", tmp_path / "none"), "one key a line"),
            ((program, "--index", index, "--feedback", tmp_path), "is no file"),
        ]:
            done = run(*arguments)
            assert (done.exit_code in (1, 2), done.output.count("\n")) == (True, 1), done.output
            assert said in done.output
