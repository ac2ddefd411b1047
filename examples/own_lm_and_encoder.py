"""Your own LM and your own encoder, on your own files: about a minute on two CPU cores as it stands, offline.

    python examples/own_lm_and_encoder.py
    python examples/own_lm_and_encoder.py --lm openai/gpt-4o-mini    # any LiteLLM name, its key in your environment
    python examples/own_lm_and_encoder.py --lm ./model.gguf          # a chat model on this machine
    python examples/own_lm_and_encoder.py --encoder FOLDER --query-prefix "query: " --passage-prefix "passage: "
    python examples/own_lm_and_encoder.py --data DATA --ask "Why did the dough not rise?"

An encoder is a folder or a hub name such as intfloat/e5-small-v2. DATA is a folder with corpus.jsonl, train.jsonl and
dev.jsonl; without one a small set is written to a temporary folder, to show the format. The default needs
`radio-dspy[local]` and the weights of the local LM, whose reasons and answers are poor.
"""

import argparse
import contextlib
import json
import tempfile
from pathlib import Path

import dspy

import radio_dspy as radio


def arguments() -> argparse.Namespace:
    """Read what to run with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", default="local", help="local, a GGUF file, or a LiteLLM name")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2", help="a folder or a hub name")
    parser.add_argument("--query-prefix", help="what the encoder wants before a query")
    parser.add_argument("--passage-prefix", help="what the encoder wants before a passage")
    parser.add_argument("--data", type=Path, help="a folder with corpus.jsonl, train.jsonl and dev.jsonl")
    parser.add_argument("--ask", help="a question; else the first one of dev.jsonl")
    return parser.parse_args()


def open_lm(name: str) -> contextlib.AbstractContextManager[dspy.LM]:
    """Open any LM by its name; only one on this machine has to be closed again."""
    if name == "local":
        return radio.local_lm(max_tokens=48)
    if name.endswith(".gguf"):
        return radio.local_lm(name, max_tokens=96)
    return contextlib.nullcontext(dspy.LM(name, temperature=0.2, max_tokens=200))


def write_small_set(folder: Path) -> Path:
    """Write one topic of the bundled demo set, as your own files would look."""
    data = radio.datasets.demo()

    def write(name: str, rows: list[dict[str, object]]) -> None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(lines, encoding="utf-8")

    def questions(examples: list[dspy.Example]) -> list[dict[str, object]]:
        return [
            {
                "id": one.id,
                "question": one.question,
                "golden_answers": one.answers,
                # Which passages are needed. Where you know it, it is used to judge, never to train; leave it out else.
                "metadata": {"supporting_ids": one.relevant},
            }
            for one in examples
            if one.id.startswith("kit")
        ]

    write("corpus.jsonl", [{"id": p.id, "contents": p.contents} for p in data.passages if p.id.startswith("kit")])
    write("train.jsonl", questions(data.train))
    write("dev.jsonl", questions(data.test))
    return folder


def main() -> None:
    """Load, index, align, ask."""
    args = arguments()
    with tempfile.TemporaryDirectory() as temporary, open_lm(args.lm) as lm:
        folder = args.data or write_small_set(Path(temporary))
        passages = radio.load_corpus(folder / "corpus.jsonl")
        train = radio.load_questions(folder / "train.jsonl")
        dev = radio.load_questions(folder / "dev.jsonl")
        print(f"{len(passages)} passages, {len(train)} questions to learn from, {len(dev)} to judge by, LM {lm.model}")

        # One encoder finds the passages, compares them with the reasons, and is the reranker that learns. Prefixes that
        # the model itself declares are used without being given.
        encoder = radio.Encoder(args.encoder, query_prefix=args.query_prefix, passage_prefix=args.passage_prefix)
        retriever = radio.FaissRetriever.build(passages, encoder=encoder)
        program = radio.RetrieveRerankAnswer(retriever, radio.Rerank(encoder, architecture="bi-encoder"))

        optimizer = radio.RADIO(
            rationale_lm=lm,
            num_threads=1 if args.lm == "local" or args.lm.endswith(".gguf") else 8,
            epochs=1,
            learning_rate=3e-5,
            max_length=128,
            run_dir=Path(temporary) / "run",
        )
        aligned = optimizer.compile(program, trainset=train, valset=dev)
        print(optimizer.report)

        question = args.ask or dev[0].question
        with dspy.context(lm=lm):
            result = aligned(question=question)
        print(f"\n{question}\n-> {result.answer}")
        for passage in result.passages:
            print(f"   read: {passage.title or passage.text[:60]}")


if __name__ == "__main__":
    main()
