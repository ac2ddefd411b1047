"""From questions to recorded rationales: answers a second against a bare asynchronous HTTP client.

    python benchmarks/rationales.py [DATA] [--prompts 500] [--slots 16] [--latency 0.05] [--repeats 5]

The LM is a server of known speed in a process of its own on loopback: OpenAI's protocol, so many slots, each answer
after a fixed time. The peer sends the same messages with aiohttp, as many at the same time as the server has slots,
and keeps the texts in a list. Ours is what a compile does: DSPy's signature, adapter and LM, the check of each
rationale against its answers and the encoder's window, and a line in the run folder that is on the disk before the
next question counts as answered. Both must get the same texts. DATA is a folder with train.jsonl; without it the
questions are those of the bundled demo set, repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import dspy
from measuring import Row, compared, interleaved, table

import radio_dspy as radio
from radio_dspy.distillation.rationales.asking import Question
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.lm.signatures import ExtractRationale
from radio_dspy.runs.run import Run

ENCODER = "all-MiniLM-L6-v2"
MODEL = "gpt-4o-mini"  # the paper's. DSPy searches its whole list of prices for a name that it does not know
FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")


# The server


def answer_to(body: dict[str, Any]) -> str:
    """A rationale that repeats what was asked, so that each is another one and names its answer."""
    asked = body["messages"][-1]["content"].partition("\n\nRespond")[0]
    rationale = " ".join(FIELD.sub(r"\1:", asked).split())
    return f"[[ ## rationale ## ]]\n{rationale}\n\n[[ ## completed ## ]]"


def serve(port: Connection, slots: int, latency: float) -> None:
    """Answer until the process is ended."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])  # type: ignore[index]
                body = json.loads(await reader.readexactly(length))
                async with free:
                    await asyncio.sleep(latency)
                writer.write(reply(answer_to(body)))

    async def run() -> None:
        server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=1024)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    free = asyncio.Semaphore(slots)
    asyncio.run(run())


def reply(text: str) -> bytes:
    """A completion as HTTP."""
    message = {"role": "assistant", "content": text}
    body = json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


@contextlib.contextmanager
def simulated(slots: int, latency: float) -> Iterator[str]:
    """The server's address for the length of the block."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, slots, latency), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()
        process.join()


# The two sides


def questions_of(data: Path | None, count: int) -> list[Question]:
    """So many questions with ids of their own."""
    examples = radio.load_questions(data / "train.jsonl") if data else radio.datasets.demo().train
    chosen = [examples[number % len(examples)] for number in range(count)]
    return [(f"q{number}", f"{number}: {one.question}", tuple(one.answers)) for number, one in enumerate(chosen)]


def with_aiohttp(address: str, questions: Sequence[Question], slots: int) -> list[str]:
    """The texts, by nothing but an HTTP client."""
    adapter = dspy.ChatAdapter()
    asked = [
        adapter.format(ExtractRationale, demos=[], inputs={"question": question, "answers": list(answers)})
        for _, question, answers in questions
    ]

    async def ask(session: aiohttp.ClientSession, free: asyncio.Semaphore, messages: Any) -> str:
        body = {"model": MODEL, "messages": messages, "temperature": 0.2, "max_tokens": 1000}
        async with free, session.post(f"{address}/chat/completions", json=body) as response:
            return str((await response.json())["choices"][0]["message"]["content"])

    async def all_of_them() -> list[str]:
        free = asyncio.Semaphore(slots)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=slots)) as session:
            return await asyncio.gather(*[ask(session, free, messages) for messages in asked])

    return [text.split("]]", 1)[1].rsplit("[[", 1)[0].strip() for text in asyncio.run(all_of_them())]


def with_ours(address: str, questions: Sequence[Question], slots: int, encoder: radio.Encoder) -> list[str]:
    """The texts, by way of a run folder."""
    lm = dspy.LM(f"openai/{MODEL}", api_base=address, api_key="none", cache=False)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        texts, counts = explain(
            questions,
            run,
            lm=lm,
            extractor=radio.RationaleExtractor(),
            given={},
            encoder=encoder,
            num_threads=slots,
            show_progress=False,
        )
        kept = {one["id"]: one["rationale"] for one in run.records("rationales")}
    if kept != texts or counts.written != len(questions):
        raise SystemExit(f"The run folder does not hold what came back: {counts}.")
    return [texts[key] for key, _, _ in questions]


def measure(
    data: Path | None = None,
    *,
    prompts: int = 500,
    slots: int = 16,
    latencies: Sequence[float] = (0.05, 0.25),
    repeats: int = 5,
) -> list[Row]:
    """Ask for all rationales with both.

    Args:
        data: A folder with train.jsonl; None takes the demo set.
        prompts: Questions.
        slots: Answers that the server writes at the same time, and calls in flight.
        latencies: Seconds an answer, each a row.
        repeats: Rounds of the timing.
    """
    questions = questions_of(data, prompts)
    encoder = radio.Encoder(ENCODER)
    rows = []
    for latency in latencies:
        with simulated(slots, latency) as address:
            work = {
                "ours": lambda address=address: with_ours(address, questions, slots, encoder),
                "aiohttp": lambda address=address: with_aiohttp(address, questions, slots),
            }
            if work["ours"]() != work["aiohttp"]():
                raise SystemExit("The two sides got different texts.")
            seconds = interleaved(work, repeats)
            began = time.process_time()
            work["ours"]()
            python = (time.process_time() - began) / prompts * 1e3  # which the threads take in turns
        ratio, spread = compared(seconds, "ours", "aiohttp")
        speed = {name: prompts / statistics.median(values) for name, values in seconds.items()}
        most = slots / latency
        rows.append(
            Row(
                f"rationales, {prompts} at {slots} slots, {latency * 1e3:.0f} ms an answer",
                f"{speed['ours']:.0f} a second",
                f"aiohttp {speed['aiohttp']:.0f} a second",
                ratio,
                0.9,
                "at least",
                f"{spread}; the server gives at most {most:.0f} a second; {python:.1f} ms of Python an answer, and the "
                "first question is asked alone",
                f"{speed['ours'] / most:.0%} of the server",
            )
        )
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.05, 0.25])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(
        table(
            measure(
                options.data,
                prompts=options.prompts,
                slots=options.slots,
                latencies=options.latency,
                repeats=options.repeats,
            )
        )
    )


if __name__ == "__main__":
    main()
