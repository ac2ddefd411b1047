"""A program that RADIO aligned is a DSPy program like any other: optimizers and wrappers take it, its weights stay."""

import asyncio
import functools
import gc
import json
from types import SimpleNamespace

import dspy
import psutil
import pytest

import radio_dspy as radio
from radio_dspy.core.errors import SettingsError
from radio_dspy.evaluation.metrics import dspy_metric, exact_match
from radio_dspy.models.cache import _shared_scorer
from radio_dspy.models.encoder import load_sentence_transformer
from radio_dspy.rerankers import RerankerWeights
from tests.conftest import LaunchableLM
from tests.settings import radio_of

METRIC = dspy_metric(exact_match)
BETTER = "Answer with the words of the passage and nothing else."
TRAINED = {"epochs": 1, "learning_rate": 1e-3, "max_length": 64, "per_device_train_batch_size": 8} | {
    "gate": False  # whatever it is worth
}
# What optimizers ask a prompt model for, all at once: an adapter takes the fields that it asked for.
PROPOSALS = {
    "proposed_instruction": BETTER,
    "proposed_prefix_for_output_field": "Answer:",
    "new_instruction": BETTER,
    "natural_language_rules": BETTER,
    "program_description": "Answers questions from passages.",
    "module_description": "Answers a question from passages.",
    "observations": "Questions about a kitchen.",
    "summary": "Questions about a kitchen.",
    "reasoning": "The question asks for it.",
    "discussion": "The answer was too long.",
    "advice": json.dumps({"answer": BETTER}),
    "module_advice": json.dumps({"answer": BETTER}),
}


class Learner(LaunchableLM):
    """Answers rightly once its prompt holds a demonstration or the better instruction, and in every second rollout.

    Whoever asks it for a better instruction gets one: so there is something that an optimizer can find.
    """

    def __init__(self, examples):
        super().__init__({}, follow_examples=True)
        self.known = {one.question: one.answers[0] for one in examples}

    def _use_example(self, messages):
        """DummyLM asks this for its reply to the messages."""
        asked = messages[-1]["content"]
        taught = len(messages) > 2 or BETTER in messages[0]["content"] or self.kwargs.get("rollout_id")
        question = next((one for one in self.known if one in asked), None)
        reply = {**PROPOSALS, "answer": self.known[question] if taught and question else "I do not know."}
        return json.dumps(reply) if "JSON object" in asked else self._format_answer_fields(reply)


@pytest.fixture(scope="module")
def given(index, small, topic, tmp_path_factory):
    """An aligned program, with the questions and the LM that the optimizers after it get."""
    student = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=10, k=3)
    optimizer = radio_of(run_dir=tmp_path_factory.mktemp("run"), **TRAINED)
    program = optimizer.compile(student, trainset=topic.train[:6], valset=topic.test[:2])
    probe, *dev = topic.test[:4]
    assert program.rerank.weights.checkpoint != student.rerank.weights.checkpoint
    found = index(probe.question, k=10).passages
    assert program.rerank(probe.question, found).scores != student.rerank(probe.question, found).scores
    gc.collect()
    gc.freeze()  # what is there already need not be looked through at every count
    return SimpleNamespace(
        program=program, train=topic.train[6:10], dev=dev, probe=probe, lm=Learner([*topic.train, *topic.test])
    )


def loads() -> int:
    """How many models the process has loaded so far."""
    return load_sentence_transformer.cache_info().misses + _shared_scorer.cache_info().misses


def models() -> int:
    """How many models are in memory that were not when ``given`` was made, whose objects are frozen."""
    from transformers import PreTrainedModel

    gc.collect()
    return sum(issubclass(type(one), PreTrainedModel) for one in gc.get_objects())  # isinstance asks the object


def weights_in(program: dspy.Module) -> list[RerankerWeights]:
    """The weights of every reranker in a program, and in the candidates that an optimizer noted on it."""
    return [one.weights for _, one in program.named_sub_modules(radio.Rerank)]


def few_shot(given):
    return dspy.LabeledFewShot(k=1).compile(given.program, trainset=given.train)


def bootstrap(**settings):
    return dspy.BootstrapFewShot(metric=METRIC, max_bootstrapped_demos=1, max_labeled_demos=1, **settings)


def random_search(given):
    settings = {"max_bootstrapped_demos": 1, "max_labeled_demos": 1, "num_candidate_programs": 1, "num_threads": 1}
    optimizer = dspy.BootstrapFewShotWithRandomSearch(metric=METRIC, **settings)
    return optimizer.compile(given.program, trainset=given.train, valset=given.dev)


def optuna_search(given):
    settings = {"max_labeled_demos": 1, "num_candidate_programs": 1, "num_threads": 1}
    optimizer = dspy.teleprompt.BootstrapFewShotWithOptuna(metric=METRIC, **settings)
    return optimizer.compile(given.program, trainset=given.train, valset=given.dev, max_demos=1)


def nearest(given):
    # DSPy's embedder keys its cache by the function's source text: two encoders would share it.
    embedder = dspy.Embedder(given.program.retriever.encoder.encode_queries, caching=False)
    return dspy.KNNFewShot(2, given.train, embedder, metric=METRIC, max_bootstrapped_demos=1).compile(given.program)


def copro(given):
    optimizer = dspy.COPRO(metric=METRIC, breadth=2, depth=1)
    return optimizer.compile(
        given.program, trainset=given.train, eval_kwargs={"num_threads": 1, "display_progress": False}
    )


def mipro(given, demos=1):
    settings = {"max_bootstrapped_demos": demos, "max_labeled_demos": demos, "num_threads": 1}
    optimizer = dspy.MIPROv2(metric=METRIC, auto=None, num_candidates=2, **settings)
    return optimizer.compile(given.program, trainset=given.train, valset=given.dev, num_trials=2, minibatch=False)


def simba(given):
    optimizer = dspy.SIMBA(metric=METRIC, bsize=4, num_candidates=2, max_steps=1, num_threads=1)
    return optimizer.compile(given.program, trainset=given.train)


def gepa(given):
    settings = {"max_metric_calls": 16, "reflection_minibatch_size": 2, "num_threads": 1}
    optimizer = dspy.GEPA(metric=METRIC, reflection_lm=given.lm, **settings)
    return optimizer.compile(given.program, trainset=given.train, valset=given.dev)


def rules(given):
    # InferRules writes into the signature class, which all programs share: this one gets a class of its own.
    program = given.program.deepcopy()
    program.answer.signature = program.answer.signature.with_instructions("Answer the question.")
    optimizer = dspy.InferRules(metric=METRIC, num_candidates=1, max_labeled_demos=0, num_threads=1)
    return optimizer.compile(program, trainset=given.train, valset=given.dev)


def reward(given):
    return lambda inputs, prediction: METRIC(given.probe, prediction)


def best_of(given):
    return dspy.BestOfN(given.program, N=2, reward_fn=reward(given), threshold=1.0)


def refine(given):
    return dspy.Refine(given.program, N=2, reward_fn=reward(given), threshold=1.0)


def ensemble(given):
    vote = functools.partial(dspy.majority, field="answer")  # its own choice is the last field, which is no text
    return dspy.Ensemble(reduce_fn=vote).compile([given.program, few_shot(given), few_shot(given)])


COMPILED = {
    "LabeledFewShot": few_shot,
    "BootstrapFewShot": lambda given: bootstrap().compile(given.program, trainset=given.train),
    "BootstrapFewShotWithRandomSearch": random_search,
    "BootstrapFewShotWithOptuna": optuna_search,
    "KNNFewShot": nearest,
    "COPRO": copro,
    "MIPROv2": mipro,
    "MIPROv2, instructions alone": functools.partial(mipro, demos=0),
    "SIMBA": simba,
    "GEPA": gepa,
    "InferRules": rules,
    "BestOfN": best_of,
    "Refine": refine,
    "Ensemble": ensemble,
}


async def streamed(program, question):
    return [part async for part in dspy.streamify(program)(question=question)][-1]


# Each runs a program on questions, the probe first, and gives the prediction for it.
RUN = {
    "Evaluate": lambda program, examples: dspy.Evaluate(
        devset=examples, metric=METRIC, num_threads=2, display_progress=False
    )(program).results[0][1],
    "Parallel": lambda program, examples: dspy.Parallel(num_threads=2, disable_progress_bar=True)(
        [(program, one) for one in examples]
    )[0],
    "batch": lambda program, examples: program.batch(examples, num_threads=2, timeout=0, disable_progress_bar=True)[0],
    "acall": lambda program, examples: asyncio.run(program.acall(question=examples[0].question)),
    "asyncify": lambda program, examples: asyncio.run(dspy.asyncify(program)(question=examples[0].question)),
    "streamify": lambda program, examples: asyncio.run(streamed(program, examples[0].question)),
}


@pytest.mark.parametrize("name", [*COMPILED, *RUN])
def test_what_dspy_makes_of_an_aligned_program_keeps_its_weights(given, name):
    question = given.probe.question
    with dspy.context(lm=given.lm):
        alone = given.program(question=question)
        assert METRIC(given.probe, alone) == 0.0  # there is something to learn
        before = loads(), models()
        program = COMPILED[name](given) if name in COMPILED else few_shot(given)
        prediction = RUN[name](program, [given.probe, *given.dev]) if name in RUN else program(question=question)
    assert METRIC(given.probe, prediction) == 1.0
    assert prediction.passages == alone.passages
    assert prediction.scores == pytest.approx(alone.scores, abs=1e-6)
    weights = weights_in(program)
    assert weights
    assert all(one.dump_state() == given.program.rerank.weights.dump_state() for one in weights)
    assert (loads(), models()) == before


def test_a_copy_holds_names_and_no_model(given):
    given.program.deepcopy()  # what is imported or computed once
    state = json.dumps(given.program.rerank.weights.dump_state())
    assert len(state) < 10_000
    process, loaded = psutil.Process(), loads()
    before = process.memory_info().rss
    copies = [given.program.deepcopy() for _ in range(50)]
    grown = process.memory_info().rss - before
    assert len({id(weights) for one in copies for weights in weights_in(one)}) == 50
    assert all(json.dumps(weights.dump_state()) == state for one in copies for weights in weights_in(one))
    assert grown < 4 * 2**20  # fifty copies of the model itself would be 2 GB
    assert loads() == loaded


@pytest.mark.parametrize("name", ["BootstrapFewShot", "MIPROv2"])
def test_prompts_and_weights_are_saved_together(given, index, name, tmp_path):
    with dspy.context(lm=given.lm):
        program = COMPILED[name](given)
        loaded = radio.load(radio.save(program, tmp_path / "saved"), retriever=index)
        before, after = (one(question=given.probe.question) for one in (program, loaded))
    assert (loaded.answer.signature.instructions == BETTER) is (name == "MIPROv2")
    assert loaded.answer.signature.instructions == program.answer.signature.instructions
    assert [dict(one) for one in loaded.answer.demos] == [dict(one) for one in program.answer.demos]
    assert bool(loaded.answer.demos) is (name == "BootstrapFewShot")
    assert loaded.rerank.weights.fingerprint == given.program.rerank.weights.fingerprint
    assert METRIC(given.probe, after) == 1.0
    assert after.passages == before.passages
    assert after.scores == pytest.approx(before.scores, abs=1e-6)


@pytest.mark.parametrize("name", ["BootstrapFewShotWithRandomSearch", "MIPROv2", "GEPA"])
def test_radio_after_a_prompt_optimizer_keeps_the_prompts(given, topic, name, tmp_path):
    """The candidates that an optimizer notes on its result are no rerankers of the program."""
    with dspy.context(lm=given.lm):
        program = COMPILED[name](given)
        optimizer = radio_of(run_dir=tmp_path, **TRAINED)
        again = optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
        assert METRIC(given.probe, again(question=given.probe.question)) == 1.0
    assert again.answer.signature.instructions == program.answer.signature.instructions
    assert again.answer.demos == program.answer.demos
    assert again.rerank.weights.checkpoint.startswith(str(tmp_path))
    assert program.rerank.weights.checkpoint == given.program.rerank.weights.checkpoint
    assert [one.reranker for one in optimizer.report.rerankers] == ["self.rerank"]
    assert not list(tmp_path.glob("groups-*"))


def test_knn_few_shot_comes_last(given, topic):
    """It compiles at every call from the program that it was given: what is done to its result has no effect."""
    program = COMPILED["KNNFewShot"](given)
    with dspy.context(lm=given.lm):
        assert METRIC(given.probe, program(question=given.probe.question)) == 1.0
        assert (
            METRIC(given.probe, asyncio.run(program.acall(question=given.probe.question))) == 0.0
        )  # no demonstrations
        with pytest.raises(SettingsError, match="A Rerank was called that the student does not hold"):
            radio_of(**TRAINED).compile(program, trainset=topic.train[:4], valset=topic.test[:2])


def together(given, tmp_path, prompts):
    return dspy.BetterTogether(metric=METRIC, r=radio_of(run_dir=tmp_path, **TRAINED), p=prompts)


@pytest.mark.parametrize(("prompts", "strategy"), [("MIPROv2", "r -> p"), ("BootstrapFewShot", "p -> r")])
def test_better_together_with_radio_in_both_orders(given, topic, strategy, prompts, tmp_path):
    program = given.program.deepcopy()
    program.set_lm(given.lm)
    few = {"max_bootstrapped_demos": 1, "max_labeled_demos": 1}
    with dspy.context(lm=given.lm):
        if prompts == "MIPROv2":
            optimizer, arguments = (
                dspy.MIPROv2(METRIC, auto=None, num_candidates=2, num_threads=1, **few),
                {"p": {"num_trials": 2, "minibatch": False}},
            )
        else:
            optimizer, arguments = bootstrap(), None
        result = together(given, tmp_path, optimizer).compile(
            program,
            trainset=topic.train[:8],
            valset_ratio=0,  # the last program comes back, not the one whose answers were best
            strategy=strategy,
            optimizer_compile_args=arguments,
        )
        prediction = result(question=given.probe.question)
    assert result.flag_compilation_error_occurred is False  # it swallows the error of a step
    assert [one["strategy"] for one in result.candidate_programs][-1] == strategy
    assert result.rerank.weights.checkpoint.startswith(str(tmp_path))
    assert METRIC(given.probe, prediction) == 1.0


def test_better_together_with_a_valset_returns_the_first_of_equal_answers(given, topic, tmp_path):
    program = given.program.deepcopy()
    program.set_lm(given.lm)
    with dspy.context(lm=given.lm):
        result = together(given, tmp_path, bootstrap()).compile(
            program, trainset=topic.train[:8], valset=given.dev, strategy="p -> r"
        )
    assert result.flag_compilation_error_occurred is False
    found = {one["strategy"]: one for one in result.candidate_programs}
    assert {name: one["score"] for name, one in found.items()} == {"": 0.0, "p": 100.0, "p -> r": 100.0}
    assert result.rerank.weights.checkpoint == given.program.rerank.weights.checkpoint  # that of "p"
    assert found["p -> r"]["program"].rerank.weights.checkpoint.startswith(str(tmp_path))
    assert found["p -> r"]["program"].answer.demos == result.answer.demos
