"""What a Ray cluster costs and gains: rationales against an LM that takes 50 ms, encoding, and the driver's memory.

    python benchmarks/ray_engine.py [QUESTIONS] [PASSAGES]

The cluster is this machine: two workers of each kind. Times are those after the workers have started.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dspy

import radio_dspy as radio
from radio_dspy.distillation.rationales.extractor import RationaleExtractor
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.models.callable_encoder import CallableEncoder
from radio_dspy.runs.run import Run

SLOTS, SECONDS = 16, 0.05
STUB = f"""
import json, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep({SECONDS})
        text = "[[ ## rationale ## ]]\\nIt is the reason, and nothing else.\\n\\n[[ ## completed ## ]]"
        choice = {{"index": 0, "message": {{"role": "assistant", "content": text}}, "finish_reason": "stop"}}
        usage = {{"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}}
        body = {{"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"]}}
        data = json.dumps(body | {{"choices": [choice], "usage": usage}}).encode()
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


def peak() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rationales(lm: dspy.LM, count: int) -> float:
    """Seconds for so many rationales, kept in a new run folder."""
    questions = [(f"q{number}", f"Why is jug {number} cold?", ["the reason"]) for number in range(count)]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        how = {"extractor": RationaleExtractor(), "given": {}, "show_progress": False, "num_threads": SLOTS}
        explain(questions, Run(folder), lm=lm, **how)
    return time.perf_counter() - began


def simulated(texts: list[str]) -> list[list[float]]:
    """Vectors that cost nothing."""
    return [[1.0, float(len(text))] for text in texts]


def main() -> None:
    """Measure, and print each figure as it comes."""
    count, passages = (int(one) for one in (sys.argv[1:] + ["1000", "100000"][len(sys.argv) - 1 :])[:2])
    stub = subprocess.Popen([sys.executable, "-c", STUB], stdout=subprocess.PIPE, text=True)
    assert stub.stdout is not None
    address = f"http://127.0.0.1:{int(stub.stdout.readline())}/v1"
    lm = dspy.LM("openai/gpt-4o-mini", api_base=address, api_key="none", cache=False)
    figures: dict[str, float] = {}
    try:
        with radio.RayEngine(encoders=2, cpus_per_encoder=0.3, askers=2, cpus_per_asker=0.1) as engine:
            remote = engine.lm(lm)
            rationales(lm, SLOTS), rationales(remote, SLOTS)  # connections, workers
            figures["local calls/s"] = count / rationales(lm, count)
            figures["ray calls/s"] = count / rationales(remote, count)
            figures["ratio"] = figures["ray calls/s"] / figures["local calls/s"]
            for size in (count // 5, count):
                rationales(remote, size)
                figures[f"driver MiB after {size} questions"] = peak()
            for size in (passages // 10, passages):
                texts = [f"passage {number} of many, with some words in it" for number in range(size)]
                before, began = peak(), time.perf_counter()
                engine.encoder(CallableEncoder(simulated, name="simulated")).encode_passages(texts)
                figures[f"simulated passages/s, {size}"] = size / (time.perf_counter() - began)
                figures[f"driver MiB beside {size} texts"] = peak() - before
            encoder = radio.Encoder("all-MiniLM-L6-v2")
            texts = [f"passage {number} tells of {number % 97} jugs and {number % 89} cats" for number in range(4096)]
            for name, one in (("local", encoder), ("ray", engine.encoder(encoder))):
                one.encode_passages(texts[:1024])
                began = time.perf_counter()
                one.encode_passages(texts)
                figures[f"{name} passages/s"] = len(texts) / (time.perf_counter() - began)
    finally:
        stub.kill()
        for name, value in figures.items():
            print(f"{name}: {value:,.2f}")
    Path("build").mkdir(exist_ok=True)
    Path("build/ray_engine.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
