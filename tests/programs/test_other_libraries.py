"""Retrievers of LangChain, LlamaIndex and Haystack go into a program and come out aligned."""

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.core.passages import as_passage, content_id
from tests.conftest import UnaskedLM
from tests.programs.test_with_rerank import CORPUS, EXAMPLES, QUESTION
from tests.settings import radio_of


class RAG(dspy.Module):
    """A program around a retriever of another library, by the name of its method."""

    def __init__(self, retriever, method, text_of):
        super().__init__()
        self.retriever = retriever
        self.respond = dspy.ChainOfThought("context, question -> response")
        self.method = method
        self.text_of = text_of

    def forward(self, question):
        found = getattr(self.retriever, self.method)(question)
        return self.respond(context=[self.text_of(one) for one in found], question=question)


def aligned(program, small, after):
    """The program after RADIO, with its report; nobody is asked."""
    student = radio.with_rerank(program, radio.Rerank(small, "bi-encoder", k=3), after=after)
    rows = [dspy.Example(question=question, response=text).with_inputs("question") for question, text in EXAMPLES]
    optimizer = radio_of(epochs=1, learning_rate=1e-3, max_length=32, gate=False, false_negatives=None, sampling="all")
    with dspy.context(lm=UnaskedLM({})):
        found = optimizer.compile(student, trainset=rows[:4], valset=rows[4:])
    report = optimizer.report
    assert report.questions["used"] == 4
    assert report.rerankers[0].groups
    assert report.metrics["first_stage"]["ndcg@10"] > 0
    assert found.retriever.rerank.weights.checkpoint != student.retriever.rerank.weights.checkpoint
    return found


def test_langchains_ensemble_retriever(small):
    documents = pytest.importorskip("langchain_core.documents")
    retrievers = pytest.importorskip("langchain_core.retrievers")
    ensembles = pytest.importorskip("langchain_classic.retrievers")

    class Fixed(retrievers.BaseRetriever):
        texts: list[str]

        def _get_relevant_documents(self, query, *, run_manager):
            return [documents.Document(page_content=one, metadata={"source": one[:3]}) for one in self.texts]

    both = ensembles.EnsembleRetriever(
        retrievers=[Fixed(texts=CORPUS[:3]), Fixed(texts=CORPUS[2:])], weights=[0.5, 0.5]
    )
    program = aligned(RAG(both, "invoke", lambda one: one.page_content), small, "retriever.invoke")
    found = program.retriever.invoke(QUESTION)
    assert all(isinstance(one, documents.Document) for one in found)
    assert [one.metadata["source"] for one in found] == [one.page_content[:3] for one in found]
    passage = as_passage(found[0])
    assert (passage.id, passage.metadata) == (content_id(found[0].page_content), {"source": found[0].page_content[:3]})


def test_llamaindexs_retriever(small):
    schema = pytest.importorskip("llama_index.core.schema")
    retrievers = pytest.importorskip("llama_index.core.retrievers")
    nodes = [schema.TextNode(text=text, id_=f"n{row}", metadata={"row": row}) for row, text in enumerate(CORPUS)]

    class Fixed(retrievers.BaseRetriever):
        def _retrieve(self, query_bundle):
            return [schema.NodeWithScore(node=node, score=1.0 - row / 10) for row, node in enumerate(nodes)]

    program = aligned(RAG(Fixed(), "retrieve", lambda one: one.text), small, "retriever.retrieve")
    found = program.retriever.retrieve(QUESTION)
    assert all(isinstance(one, schema.NodeWithScore) for one in found)
    assert [one.score for one in found] == [1.0 - one.metadata["row"] / 10 for one in found]
    passage = as_passage(found[0])
    assert (passage.id, passage.text) == (found[0].node_id, found[0].text)
    assert passage.metadata == {"row": found[0].metadata["row"]}
    assert as_passage(nodes[0]).text == CORPUS[0]


def test_haystacks_retriever(small):
    haystack = pytest.importorskip("haystack")
    stores = pytest.importorskip("haystack.document_stores.in_memory")
    components = pytest.importorskip("haystack.components.retrievers.in_memory")
    store = stores.InMemoryDocumentStore()
    store.write_documents([haystack.Document(content=text, meta={"row": row}) for row, text in enumerate(CORPUS)])
    retriever = components.InMemoryBM25Retriever(store, top_k=5)

    class Pipeline(RAG):
        def forward(self, question):
            found = self.retriever.run(query=f"{question} water")["documents"]
            return self.respond(context=[one.content for one in found], question=question)

    program = aligned(Pipeline(retriever, "run", None), small, "retriever.run")
    found = program.retriever.run(query="water")["documents"]
    assert all(isinstance(one, haystack.Document) for one in found)
    passage = as_passage(found[0])
    assert (passage.id, passage.metadata) == (found[0].id, {"row": found[0].meta["row"]})
