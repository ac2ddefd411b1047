"""Train on preference groups that you have, without an LM, and hand the reranker to sentence-transformers.

The groups are lines as FlagEmbedding trains on: {"query", "pos", "neg"}. Here they are made of a part of the bundled
demo set, with what the first stage confuses as the negatives. Run it with `python examples/from_flagembedding.py`: a
minute on two CPU cores, without any download; it needs `radio-dspy[local]`.
"""

import json
import tempfile
from pathlib import Path

import dspy
from sentence_transformers import SentenceTransformer

import radio_dspy as radio

TOPICS = ("kit", "med", "sea")  # kitchen, medicine, seafaring


def write_lines(path: Path, questions: list[dspy.Example], retriever: radio.FaissRetriever) -> None:
    """Write a line for each question: the passages that answer it, and seven that the first stage finds instead."""
    contents = {passage.id: passage.contents for passage in retriever.passages}
    with path.open("w", encoding="utf-8") as file:
        for question, found in zip(questions, retriever.search([one.question for one in questions], 10), strict=True):
            others = [one.contents for one in found.passages if one.id not in question.relevant]
            positives = [contents[key] for key in question.relevant]
            file.write(json.dumps({"query": question.question, "pos": positives, "neg": others[:7]}) + "\n")


def main() -> None:
    """Write lines, load them, train, export, and score with sentence-transformers alone."""
    data = radio.datasets.demo()
    train = [one for one in data.train if one.id.startswith(TOPICS)]
    test = [one for one in data.test if one.id.startswith(TOPICS)]
    encoder = radio.Encoder("all-MiniLM-L6-v2")
    retriever = radio.FaissRetriever.build(data.passages, encoder=encoder)

    with tempfile.TemporaryDirectory() as folder:
        write_lines(Path(folder) / "train.jsonl", train, retriever)
        write_lines(Path(folder) / "test.jsonl", test, retriever)
        groups, held_out = radio.load_groups(f"{folder}/train.jsonl"), radio.load_groups(f"{folder}/test.jsonl")

        settings = radio.TrainingSettings(num_train_epochs=4, learning_rate=3e-5, max_length=128, tower="query")
        optimizer = radio.GroupFinetune(settings, run_dir=f"{folder}/run")
        rerank = optimizer.compile(radio.Rerank(encoder, "bi-encoder"), trainset=groups, valset=held_out)
        print(optimizer.report)

        # What others load: one folder, in sentence-transformers' own format.
        model = SentenceTransformer(str(radio.export(rerank, f"{folder}/reranker")), device="cpu")
        question, texts = held_out[0].question, [*held_out[0].pos, *held_out[0].neg]
        theirs = model.similarity(model.encode_query([question]), model.encode_document(texts))[0].tolist()

        ours = rerank(question, texts)
        print(f"\n{question}")
        for text, score, position in zip(ours.passages, ours.scores, ours.indices, strict=True):
            print(f"  {score:.5f} here, {theirs[position]:.5f} by sentence-transformers: {text.splitlines()[0]}")


if __name__ == "__main__":
    main()
