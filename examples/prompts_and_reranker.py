"""Prompt and reranker compiled together, on a part of the bundled demo set: a minute and a half on two CPU cores.

First the reranker is aligned with the reasons for the answers. Then MIPROv2 optimizes the answer's prompt on the
passages that the aligned reranker brings. Then the reranker is aligned again, now also with what the new prompt answers
rightly. The program is judged before, between and after.

Run it with `python examples/prompts_and_reranker.py`; it needs `radio-dspy[local]`, the weights of the local LM, and
`optuna` for MIPROv2. A 135M LM writes poor prompts and poor answers: look at the steps, not at the figures.
"""

import tempfile

import dspy

import radio_dspy as radio
from radio_dspy.distillation import AnswerCorrectness, RationaleSimilarity, RetrievalScore
from radio_dspy.evaluation.relevance import answer_metrics
from radio_dspy.retrievers.requests import rank_requests

ALIGNING = {"epochs": 1, "learning_rate": 3e-5, "max_length": 128}


def answers_well(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> float:
    """What the prompt is optimized for: words shared with a gold answer."""
    return radio.metrics.token_f1(prediction.answer, example.answers)


def optimize_prompt(program: dspy.Module, train: list[dspy.Example], valset: list[dspy.Example]) -> dspy.Module:
    """MIPROv2 in its smallest form; the reranker's weights go through untouched."""
    mipro = dspy.MIPROv2(
        metric=answers_well, auto=None, num_candidates=2, max_bootstrapped_demos=0, max_labeled_demos=2, num_threads=1
    )
    return mipro.compile(
        program,
        trainset=train,
        valset=valset,
        num_trials=2,
        minibatch=False,
        data_aware_proposer=False,
        program_aware_proposer=False,
        fewshot_aware_proposer=False,
    )


def main() -> None:
    """Align, optimize the prompt, align again."""
    data = radio.datasets.demo()
    kitchen = [one for one in data.passages if one.id.startswith("kit")]
    known = [one for one in data.train if one.id.startswith("kit")]
    train, held_out = known[:8], known[8:18]  # the gates choose on held_out, so that test stays unseen
    test = [one for one in data.test if one.id.startswith("kit")]

    encoder = radio.Encoder("all-MiniLM-L6-v2")
    retriever = radio.FaissRetriever.build(kitchen, encoder=encoder)
    program = radio.RetrieveRerankAnswer(retriever, radio.Rerank(encoder, architecture="bi-encoder"), k=2)
    requests = rank_requests(test, retriever, program.candidates)

    with radio.local_lm(max_tokens=32) as lm, tempfile.TemporaryDirectory() as folder, dspy.context(lm=lm):

        def judge(title: str, judged: dspy.Module) -> None:
            rankings = {"now": judged.rerank.rank_all(requests)}
            ndcg = radio.evaluation.compare(rankings, requests)["now"]["ndcg@10"]
            f1 = answer_metrics(judged, test[:4], lm, show_progress=False)["token_f1"]
            print(f"{title}: nDCG@10 {ndcg:.3f}, token F1 of the answers {f1:.3f}")

        judge("before", program)

        reasons = radio.RADIO(rationale_lm=lm, run_dir=f"{folder}/run", **ALIGNING)
        aligned = reasons.compile(program, trainset=train, valset=held_out)
        print(reasons.report.decision)

        prompted = optimize_prompt(aligned, train[:4], train[4:])
        judge("between: reranker aligned, prompt optimized", prompted)

        # The new prompt has its say: which single passage lets it give the right answer?
        correct = AnswerCorrectness(lm, answer=prompted.answer, depth=2, keep=f"{folder}/correct.jsonl")
        both = radio.RADIO(
            rationale_lm=lm,
            signals={correct: 0.25, RationaleSimilarity(encoder, index=retriever): 0.25, RetrievalScore(): 0.5},
            run_dir=f"{folder}/run",  # the rationales are there already
            **ALIGNING,
        )
        print(both.estimate(prompted, trainset=train, valset=held_out))
        final = both.compile(prompted, trainset=train, valset=held_out)
        print(both.report.decision)
        judge("after: reranker aligned again", final)
        print(f"the answer's prompt: {final.answer.signature.instructions!r}, {len(final.answer.demos)} demonstrations")


if __name__ == "__main__":
    main()
