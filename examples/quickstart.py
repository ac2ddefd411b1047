"""The whole way on a part of the bundled demo set, without any download: about a minute on two CPU cores.

Run it with `python examples/quickstart.py`; it needs `radio-dspy[local]` and the weights of the local LM.
"""

import tempfile
from pathlib import Path

import dspy

import radio_dspy as radio


def main() -> None:
    """Index, align, judge, save, load, answer."""
    data = radio.datasets.demo()
    kitchen = [one for one in data.passages if one.id.startswith("kit")]
    train = [one for one in data.train if one.id.startswith("kit")]
    test = [one for one in data.test if one.id.startswith("kit")]

    encoder = radio.Encoder("all-MiniLM-L6-v2")
    retriever = radio.FaissRetriever.build(kitchen, encoder=encoder)
    program = radio.RetrieveRerankAnswer(retriever, radio.Rerank(encoder, architecture="bi-encoder"))

    with radio.local_lm(max_tokens=48) as lm, tempfile.TemporaryDirectory() as folder:
        optimizer = radio.RADIO(rationale_lm=lm, epochs=1, learning_rate=3e-5, max_length=128, run_dir=f"{folder}/run")
        aligned = optimizer.compile(program, trainset=train, valset=test)
        print(optimizer.report)

        saved = radio.save(aligned, Path(folder) / "aligned")
        aligned = radio.load(saved, retriever=retriever)
        with dspy.context(lm=lm):
            result = aligned(question=test[0].question)
        print(f"\n{test[0].question}\n-> {result.answer}   (gold: {test[0].answer})")
        for passage in result.passages:
            print(f"   read: {passage.title}")


if __name__ == "__main__":
    main()
