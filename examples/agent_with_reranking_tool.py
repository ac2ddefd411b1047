"""An agent whose search tool reranks what it finds, and RADIO that aligns this reranker: about a minute, offline.

    python examples/agent_with_reranking_tool.py
    python examples/agent_with_reranking_tool.py --lm openai/gpt-4o-mini    # any LiteLLM name, with its key set

With an LM that can drive an agent, RADIO runs the agent on the training questions, and the reranker learns from the
queries that the agent makes up.

The default is the local LM of 135M parameters, which cannot drive one: asked twelve times, it never called the tool. So
it writes the reasons only, and the reranker learns from the questions themselves (`RADIO(retriever=...)`). To show the
compiled tool inside the agent, a stand-in with a fixed script then takes the LM's place; the output says so. This needs
`radio-dspy[local]` and the weights of the local LM.
"""

import argparse
import contextlib
import json
import tempfile

import dspy
from dspy.utils import DummyLM

import radio_dspy as radio


class Librarian(dspy.Module):
    """Answers questions by looking things up."""

    def __init__(self, retriever: radio.FaissRetriever, encoder: radio.Encoder) -> None:
        super().__init__()
        self.retriever = retriever
        self.rerank = radio.Rerank(encoder, architecture="bi-encoder", k=3)
        # The tool is a method: the compiled copy of the agent then searches with the compiled reranker.
        self.agent = dspy.ReAct("question -> answer", tools=[self.search], max_iters=4)

    def search(self, query: str) -> list[str]:
        """Search the island's library; gives the three passages that fit the query best."""
        found = self.retriever(query, k=20)
        return [passage.contents for passage in self.rerank(query, found.passages).passages]

    def forward(self, question: str) -> dspy.Prediction:
        """Let the agent search, then answer."""
        return self.agent(question=question)


def stand_in(question: str) -> DummyLM:
    """Writes what an agent with a single idea would: search for the question itself, then be content."""
    search = {"next_tool_name": "search", "next_tool_args": json.dumps({"query": question})}
    finish = {"next_tool_name": "finish", "next_tool_args": "{}"}
    answer = {"reasoning": "There is none.", "answer": "(a stand-in has no answer)"}
    return DummyLM([{"next_thought": "I look it up.", **search}, {"next_thought": "That will do.", **finish}, answer])


def show(librarian: Librarian, example: dspy.Example, lm: dspy.LM, needed: set[str]) -> None:
    """Ask the agent, and print what its tool was asked and gave."""
    with dspy.context(lm=lm):
        result = librarian(question=example.question)
    for name, value in result.trajectory.items():
        if name.startswith("tool_args") and value:
            print(f"    searches {value['query']:.60}...")
        elif isinstance(value, list):
            for passage in value:
                print(f"      reads {passage.splitlines()[0]}{'  <- holds the answer' if passage in needed else ''}")
    print(f"    answers {result.answer}")


def main() -> None:
    """Build the agent, align its reranker, ask it before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", default="local", help="local, or a LiteLLM name")
    name = parser.parse_args().lm
    local = name == "local"

    data = radio.datasets.demo()
    kitchen = [one for one in data.passages if one.id.startswith("kit")]
    train = [one for one in data.train if one.id.startswith("kit")]
    test = [one for one in data.test if one.id.startswith("kit")]
    encoder = radio.Encoder("all-MiniLM-L6-v2")
    retriever = radio.FaissRetriever.build(kitchen, encoder=encoder)
    librarian = Librarian(retriever, encoder)

    opened = radio.local_lm(max_tokens=48) if local else contextlib.nullcontext(dspy.LM(name))
    with opened as lm, tempfile.TemporaryDirectory() as folder:
        optimizer = radio.RADIO(
            rationale_lm=lm,
            retriever=retriever if local else None,  # None: run the agent, and learn from what reaches its reranker
            num_threads=1 if local else 8,
            epochs=1,
            learning_rate=3e-5,
            max_length=128,
            run_dir=f"{folder}/run",
        )
        with dspy.context(lm=lm):
            aligned = optimizer.compile(librarian, trainset=train, valset=test)
        print(optimizer.report)

        learnt_from = "the questions themselves" if local else "the queries that the agent made up"
        print(f"\nThe reranker learnt from {learnt_from}.")
        if local:
            print("From here on a stand-in with a fixed script drives the agent, because the local LM cannot.")
        for example in test[:2]:
            needed = {passage.contents for passage in kitchen if passage.id in example.relevant}
            print(f"\n{example.question}")
            for title, asked in (("before", librarian), ("after", aligned)):
                print(f"  {title}")
                show(asked, example, stand_in(example.question) if local else lm, needed)


if __name__ == "__main__":
    main()
