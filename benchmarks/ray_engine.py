"""What a Ray cluster costs beside one process, for calls of an LM that takes 50 ms and for encoding, and why.

    python benchmarks/ray_engine.py [--questions 1000] [--passages 4096] [--rounds 3]

The cluster is this machine: two workers of each kind, one thread each. One process has 16 calls in flight as well, and
two threads to encode with. Both take turns, after the workers have started; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy
from dspy import lm15

import radio_dspy as radio
from radio_dspy.distillation.rationales.extractor import RationaleExtractor
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.lm.elsewhere import serde
from radio_dspy.models.callable_encoder import CallableEncoder
from radio_dspy.models.encoder import BLOCK
from radio_dspy.runs.run import Run

SLOTS, SECONDS = 16, 0.05
TARGET = 0.9
STUB = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(float(sys.argv[1]))
        text = "[[ ## rationale ## ]]\\nIt is the reason, and nothing else.\\n\\n[[ ## completed ## ]]"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"]}
        data = json.dumps(body | {"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def stub_lm(seconds: float) -> Iterator[dspy.LM]:
    """An LM that takes so long for a call, in a process of its own."""
    stub = subprocess.Popen([sys.executable, "-c", STUB, str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        assert stub.stdout is not None
        address = f"http://127.0.0.1:{int(stub.stdout.readline())}/v1"
        yield dspy.LM("openai/gpt-4o-mini", api_base=address, api_key="none", cache=False)
    finally:
        stub.kill()


def rationales(lm: dspy.LM, count: int) -> None:
    """So many rationales, kept in a new run folder."""
    questions = [(f"q{number}", f"Why is jug {number} cold?", ["the reason"]) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"given": {}, "show_progress": False, "num_threads": SLOTS}
        explain(questions, Run(folder), lm=lm, extractor=RationaleExtractor(), **how)


def simulated(texts: list[str]) -> list[list[float]]:
    """Vectors that cost nothing, as long as all-MiniLM-L6-v2's."""
    return [[1.0] * 384 for _ in texts]


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compared(name: str, unit: str, count: int, rounds: int, works: list[Callable[[], object]]) -> dict[str, float]:
    """Work done here and on the cluster in turns: the rates, and the median of their ratios."""
    for work in works:
        work()
    times = [[seconds(work) for work in works] for _ in range(rounds)]
    here, there = (statistics.median(count / one[side] for one in times) for side in (0, 1))
    ratio = statistics.median(own / other for own, other in times)
    spread = ", ".join(f"{own / other:.2f}" for own, other in times)
    print(f"{name}: one process {here:,.1f} {unit}, Ray {there:,.1f}; ratio {ratio:.3f} ({spread}), target {TARGET}")
    return {f"{name}, one process": here, f"{name}, Ray": there, f"{name}, ratio": ratio}


def overheads(engine: radio.RayEngine, lm: dspy.LM) -> dict[str, float]:
    """What the detour is made of, in milliseconds."""
    import ray

    (worker, *_) = engine.lm_pool(lm).workers
    request = lm15.Request(model="gpt-4o-mini", messages=(lm15.Message.user("Why? " * 200),))
    encoder = CallableEncoder(simulated, name="simulated")
    remote, block = engine.encoder(encoder), [f"passage {number} " + "word " * 50 for number in range(BLOCK)]
    remote.encode_passages(block)
    trips = 200
    per_trip = seconds(lambda: [ray.get(worker.ready.remote()) for _ in range(trips)]) / trips
    told = seconds(lambda: [serde.request_from_dict(serde.request_to_dict(request)) for _ in range(trips)]) / trips
    there, here = (
        seconds(lambda one=one: [one.encode_passages(block) for _ in range(20)]) / 20 for one in (remote, encoder)
    )
    found = {
        "an empty call of a worker": per_trip,
        "a request to plain values and back": told,
        f"a block of {BLOCK} texts there, its vectors back": there - here,
    }
    for name, value in found.items():
        print(f"{name}: {1000 * value:.2f} ms")
    return {f"{name}, ms": 1000 * value for name, value in found.items()}


def main() -> None:
    """Measure, and print each figure as it comes."""
    import torch

    parser = argparse.ArgumentParser()
    for name, default in (("questions", 1000), ("passages", 4096), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)  # Ray gives each worker its share then
    torch.set_num_threads(2)
    encoder = radio.Encoder("all-MiniLM-L6-v2")
    texts = [f"passage {number} tells of {number % 97} jugs and {number % 89} cats" for number in range(given.passages)]
    figures: dict[str, float] = {}
    with (
        radio.RayEngine(encoders=2, cpus_per_encoder=0.3, askers=2, cpus_per_asker=0.1) as engine,
        stub_lm(SECONDS) as lm,
    ):
        remote = engine.lm(lm)
        figures["seconds until a first call is answered"] = seconds(lambda: rationales(remote, 1))
        figures["seconds until a first block is encoded"] = seconds(
            lambda: engine.encoder(encoder).encode_passages(texts[:1])
        )
        asked = [lambda: rationales(lm, given.questions), lambda: rationales(remote, given.questions)]
        figures |= compared("rationales", "calls/s", given.questions, given.rounds, asked)
        encoded = [lambda: encoder.encode_passages(texts), lambda: engine.encoder(encoder).encode_passages(texts)]
        figures |= compared("encoding", "passages/s", given.passages, given.rounds, encoded)
        figures |= overheads(engine, lm)
    Path("build").mkdir(exist_ok=True)
    Path("build/ray_engine.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
