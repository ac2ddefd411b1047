"""A server under load: requests a second, waiting times, every answer compared; and what it does beyond its bound.

    python benchmarks/serving.py [--seconds 60] [--connections 64]

`radio-dspy serve` runs in a process of its own with a cross-encoder of all-MiniLM-L6-v2, and the connections ask from
this one, on the same cores. Each request has 16 passages of the demo set. The peer is the same model in this process,
which scores as many texts at once as a pass of the server does, and never waits for anyone. Then 20 times as many
requests as may wait are sent at once: those that find no room must get status 429, and the server's memory must stay.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from measuring import Row, table

import radio_dspy as radio

ENCODER = "all-MiniLM-L6-v2"
PASSAGES, REQUESTS = 16, 64  # of a request; different requests
PASS_REQUESTS = 16  # a pass of the server has 256 texts
WAITING = 96  # the server's bound
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Asked:
    """One request, and the scores that its answer must have."""

    query: str
    texts: Sequence[str]
    scores: Sequence[float]

    @property
    def message(self) -> bytes:
        """As it goes over the wire."""
        body = json.dumps({"query": self.query, "documents": self.texts}).encode()
        head = ["POST /v1/rerank HTTP/1.1", "host: localhost", "content-type: application/json"]
        return "\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode() + body

    def is_answered_by(self, body: bytes) -> bool:
        """Whether the scores are those of this process."""
        rows = json.loads(body)["results"]
        found = {row["index"]: row["relevance_score"] for row in rows}
        return len(found) == len(self.scores) and all(
            abs(found[index] - score) <= TOLERANCE for index, score in enumerate(self.scores)
        )


def requests_for(rerank: radio.Rerank) -> list[Asked]:
    """Questions of the demo set, each with passages drawn for it."""
    data, draw = radio.datasets.demo(), random.Random(0)
    asked = []
    for example in [*data.train, *data.test][:REQUESTS]:
        texts = [one.contents for one in draw.sample(data.passages, PASSAGES)]
        found = rerank(example.question, texts)
        scores = dict(zip(found.indices, found.scores, strict=True))
        asked.append(Asked(example.question, texts, [scores[place] for place in range(PASSAGES)]))
    return asked


def in_process(rerank: radio.Rerank, asked: Sequence[Asked], seconds: float) -> float:
    """Requests a second that one batched call after the other scores here."""
    from radio_dspy.models.cache import score_lists

    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        part = [asked[(done + place) % len(asked)] for place in range(PASS_REQUESTS)]
        score_lists(rerank.weights, [(one.query, one.texts) for one in part])
        done += PASS_REQUESTS
    return done / (time.perf_counter() - started)


@contextlib.contextmanager
def served(rerank: radio.Rerank) -> Iterator[tuple[int, psutil.Process]]:
    """The port and the process of a server."""
    with tempfile.TemporaryDirectory() as folder:
        retriever = radio.FaissRetriever.build(radio.datasets.demo().passages[:50], ENCODER)
        retriever.save(Path(folder) / "index")
        radio.save(radio.RetrieveRerankAnswer(retriever, rerank), Path(folder) / "aligned")
        line = [sys.executable, "-m", "radio_dspy.cli", "serve", f"{folder}/aligned", "--index", f"{folder}/index"]
        line += ["--port", "0", "--max-waiting", str(WAITING)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        try:
            address = (process.stdout.readline() if process.stdout else "").split()[-1]
            urllib.request.urlopen(f"{address}/ready", timeout=120).read()
            yield int(address.rpartition(":")[2]), psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one: Asked) -> tuple[int, bytes]:
    """Send a request over a connection that stays open; the status and the body of its answer."""
    writer.write(one.message)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    return int(lines[0].split()[1]), await reader.readexactly(length)


async def load(port: int, asked: Sequence[Asked], connections: int, seconds: float) -> tuple[list[float], Counter[str]]:
    """The seconds of each request, and how the requests ended."""
    times: list[float] = []
    ends: Counter[str] = Counter()
    until = time.perf_counter() + seconds

    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (started := time.perf_counter()) < until:
            one = asked[number % len(asked)]
            number += connections + 1
            status, body = await ask(reader, writer, one)
            times.append(time.perf_counter() - started)
            ends["right" if status == 200 and one.is_answered_by(body) else f"wrong ({status})"] += 1
        writer.close()

    await asyncio.gather(*(connection(number) for number in range(connections)))
    return times, ends


async def overload(port: int, asked: Sequence[Asked], count: int) -> Counter[str]:
    """How that many requests end which are sent at once."""
    ends: Counter[str] = Counter()

    async def connection(number: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            status, body = await ask(reader, writer, asked[number % len(asked)])
            right = status != 200 or asked[number % len(asked)].is_answered_by(body)
            ends[str(status) if right else "wrong"] += 1
            writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            ends[type(error).__name__] += 1

    await asyncio.gather(*(connection(number) for number in range(count)))
    return ends


def measure(seconds: float = 60.0, connections: int = 64) -> list[Row]:
    """The rows of this benchmark."""
    rerank = radio.Rerank(radio.weights(ENCODER), "cross-encoder", new_head=True)
    asked = requests_for(rerank)
    alone = in_process(rerank, asked, min(seconds, 15.0))
    with served(rerank) as (port, process):
        asyncio.run(load(port, asked, connections, min(seconds, 2.0)))
        started = time.perf_counter()
        times, ends = asyncio.run(load(port, asked, connections, seconds))
        rate = len(times) / (time.perf_counter() - started)  # to the last answer of those that were under way
        memory = [process.memory_info().rss]
        crowds = []
        for _ in range(3):
            crowds.append(asyncio.run(overload(port, asked, 20 * WAITING)))
            memory.append(process.memory_info().rss)
    cuts = statistics.quantiles(times, n=100)
    note = f"p50 {cuts[49] * 1000:.0f} ms, p95 {cuts[94] * 1000:.0f} ms, {connections} connections, {dict(ends)}"
    crowd = sum(crowds, Counter[str]())
    kept = (crowd["200"] + crowd["429"]) / crowd.total()
    growth = memory[-1] / memory[1]
    said = f"3 times {20 * WAITING} at once: {dict(crowd)}; {memory[0] >> 20} MB before, then {memory[1] >> 20}"
    right, now, then = ends["right"] / ends.total(), f"{memory[-1] >> 20} MB", f"{memory[1] >> 20} MB"
    return [
        Row("serving: requests", f"{rate:.1f}/s", f"{alone:.1f}/s batched here", rate / alone, 0.9, "at least", note),
        Row("serving: right answers", f"{ends['right']}", f"{ends.total()}", right, 1.0, "at least"),
        Row("serving: beyond the bound, 200 or 429", f"{kept:.4f}", "all", kept, 1.0, "at least", said),
        Row("serving: memory after two more crowds", now, then, growth, 1.05, "at most"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    print(table(measure(options.seconds, options.connections)))
