"""The project's 22 rules for a DSPy library, and the test that holds each one. What no other file tests is tested here.

 1  What is trained is a plain ``dspy.Parameter`` of names; its model is loaded when needed, once, behind a lock.
    tests/rerankers/test_rerank.py::test_copies_and_states_hold_names_only
    tests/models/test_encoder.py::test_a_model_is_loaded_once_also_from_threads
 2  It has ``reset`` (keeps what was learnt), ``dump_state`` (JSON) and ``load_state`` (cheap), and no more.
    tests/rerankers/test_rerank.py::test_reset_keeps_what_was_learnt
    tests/rerankers/test_rerank.py::test_a_state_of_something_else_is_refused
    tests/test_rules.py::test_the_parameter_has_the_three_methods_that_dspy_calls
 3  Checkpoints are never changed: training writes a new folder and swaps the name.
    tests/distillation/training/test_reranker.py::test_checkpoints_are_never_overwritten
    tests/optimizers/test_radio.py::test_the_student_stays_and_the_copy_learns
 4  No class is both Module and Parameter.
    tests/test_rules.py::test_no_class_is_both_module_and_parameter
 5  ``compile(student, *, trainset, teacher=None, valset=None)``: a copy is returned, not compiled, with a report.
    tests/test_rules.py::test_every_optimizers_compile_takes_what_better_together_passes
    tests/test_rules.py::test_nothing_is_marked_as_compiled
    tests/optimizers/test_radio.py::test_the_report_counts_everything
 6  Optimizers work inside BetterTogether, and DSPy's optimizers on their result.
    tests/optimizers/test_composition.py::test_what_dspy_makes_of_an_aligned_program_keeps_its_weights
    tests/optimizers/test_composition.py::test_better_together_with_radio_in_both_orders
 7  No write to the trace, no ``dspy.configure``, no raw thread pool.
    tests/test_rules.py::test_settings_and_threads_are_dspys_own
    tests/distillation/rationales/test_writing.py::test_bulk_calls_stay_out_of_trace_and_history
    tests/distillation/candidates/test_recording.py::test_it_leaves_no_trace
 8  Modules have ``forward`` and ``aforward``, which return predictions without the names that DSPy needs.
    tests/test_rules.py::test_every_module_can_be_called_both_ways
    tests/test_rules.py::test_no_field_has_a_name_that_dspy_needs
 9  Signatures are classes with an instruction and described, typed fields.
    tests/test_rules.py::test_signatures_say_what_is_asked
10  LMs are reached through ``dspy.Predict`` and ``dspy.LM``, and fail as ``dspy.LMError``.
    tests/lm/test_backends.py::test_every_module_reads_the_same_from_every_backend
    tests/lm/test_backends.py::test_the_first_failure_that_stays_ends_the_run
    tests/test_rules.py::test_litellm_writes_no_text_and_its_errors_are_not_known
11  Cache keys contain the model's identity.
    tests/lm/test_local.py::test_the_same_seed_gives_the_same_text_and_another_model_another_name
    tests/distillation/teacher/test_signals.py::test_an_index_of_another_encoder_is_not_used
    tests/test_rules.py::test_an_embedder_is_never_left_to_dspys_cache
12  Saved without an LM, loaded without permissions.
    tests/persistence/test_saving.py::test_it_is_plain_and_names_no_place_and_no_secret
    tests/lm/test_backends.py::test_what_this_library_writes_holds_neither_address_nor_key
    tests/test_rules.py::test_nothing_is_pickled_or_loaded_unsafely
13  Tests run offline and without a key, on both engines.
    tests/lm/test_backends.py::test_the_tokens_are_counted
    tests/test_rules.py::test_the_tests_have_no_key_and_look_up_no_prices
14  A loss is tested against numbers computed by hand, outside the trainer.
    tests/distillation/test_infonce.py::test_one_group_by_hand
    tests/distillation/test_margin.py::test_one_group_by_hand
    tests/distillation/test_listwise.py::test_one_list_by_hand
    tests/distillation/test_losses.py::test_ragged_groups_are_averaged_each_as_if_alone
15  Which pairs is apart from how to train: a pure function with exact counts.
    tests/distillation/preferences/test_sampling.py::test_groups_agree_with_the_reference
    tests/distillation/preferences/test_sampling.py::test_shift_by_hand
16  Records are joined by id; a wrong one is named.
    tests/core/test_rankings.py::test_a_request_with_a_doubled_candidate_names_it
    tests/distillation/rationales/test_writing.py::test_a_compile_does_not_take_a_rationale_that_belongs_to_no_question
17  Results are small frozen values; one passage has a rank.
    tests/core/test_passages.py::test_values_are_frozen
    tests/test_rules.py::test_one_passage_is_ranked_and_none_is_no_error
18  Errors say what was got and what to do; nothing is printed, asserted or swallowed.
    tests/core/test_errors.py::test_bad_corpora
    tests/test_rules.py::test_nothing_is_printed_asserted_or_swallowed
19  Explicit keyword arguments; no settings out of a dict.
    tests/optimizers/test_radio.py::test_settings_are_checked_when_they_are_given
    tests/test_rules.py::test_no_setting_comes_out_of_a_dict
20  ``import radio_dspy`` is light.
    tests/test_imports.py::test_importing_the_library_loads_nothing_heavy
21  What is kept is plain files with a manifest of format and hashes; an old state is still read.
    tests/persistence/test_saving.py::test_a_damaged_folder
    tests/persistence/test_saving.py::test_the_sample_of_0_1_ranks_as_it_did
    tests/persistence/test_saving.py::test_a_state_of_a_newer_release
22  Baselines are classes, and before and after are judged on the same candidates.
    tests/distillation/teacher/test_signals.py::test_the_other_signals
    tests/optimizers/test_radio.py::test_without_an_lm_the_answer_guides
    tests/evaluation/test_relevance.py::test_rows_are_compared_on_the_same_questions
"""

import ast
import importlib
import inspect
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import dspy
import pytest
from dspy.predict.parameter import Parameter
from dspy.teleprompt.teleprompt import Teleprompter
from radio_dspy.programs.with_rerank import Reranked

import radio_dspy
from radio_dspy import Passage, Ranking, optimizers, programs
from radio_dspy.lm import signatures
from radio_dspy.lm.predictors import Predict
from radio_dspy.models.weights import RerankerWeights
from tests.conftest import ROOT, UnaskedLM

SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("radio_dspy", "programs", "optimizers")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# A prediction's or an example's own methods, and what makes a prediction a number.
TAKEN = {"inputs", "labels", "items", "keys", "values", "get", "copy", "completions", "score"}


def found(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds, with the place where it stands."""
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield f"{name}:{node.lineno}", node


def calls(*names: str) -> list[str]:
    """Where something of this name is called; names with a point are matched whole, others by their last part."""
    return [
        place
        for place, node in found(ast.Call)
        if (name := ast.unparse(node.func)) in names or name.rpartition(".")[2] in names
    ]


def imported() -> Iterator[tuple[str, str]]:
    for place, node in found(ast.Import, ast.ImportFrom):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        yield from ((place, module) for module in modules)


@pytest.fixture(scope="module")
def classes() -> list[type]:
    """Every class of the library."""
    names = {
        one.name
        for package in (radio_dspy, programs, optimizers)
        for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
    modules = [importlib.import_module(name) for name in sorted(names)]
    return [
        one
        for module in modules
        for one in vars(module).values()
        if inspect.isclass(one) and one.__module__ == module.__name__
    ]


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_rule_has_a_test_that_is_there():
    rules: dict[int, list[str]] = {}
    for line in __doc__.splitlines():
        if heading := re.match(r" ?(\d+)  \S", line):
            rules[int(heading[1])] = []
        elif line.startswith("    tests/"):
            rules[max(rules)].append(line.strip())
    assert list(rules) == list(range(1, 23))
    for named in rules.values():
        assert named
        for path, _, name in (one.partition("::") for one in named):
            assert name in functions_in(ROOT / path), f"{path}::{name}"


def test_the_checks_see_the_sources():
    assert {"radio_dspy/core/errors.py", "programs/multi_hop.py", "optimizers/radio.py"} <= set(SOURCES)
    assert calls("mkdir")
    assert calls("dspy.Predict")


def test_the_parameter_has_the_three_methods_that_dspy_calls():
    own = {name for name, value in vars(RerankerWeights).items() if inspect.isfunction(value)}
    assert own >= {"reset", "dump_state", "load_state"}


def test_no_class_is_both_module_and_parameter(classes):
    assert RerankerWeights in classes
    both = [one for one in classes if issubclass(one, dspy.Module) and issubclass(one, Parameter)]
    assert both == [Predict]  # as DSPy's own, whose ``load_state`` it guards


def test_every_optimizers_compile_takes_what_better_together_passes(classes):
    found = [one for one in classes if issubclass(one, Teleprompter)]
    assert optimizers.RADIO in found
    for one in found:
        student, *others = list(inspect.signature(one.compile).parameters.values())[1:]
        assert student.name == "student"
        assert [other.name for other in others] == ["trainset", "teacher", "valset"], one
        assert {other.kind for other in others} == {inspect.Parameter.KEYWORD_ONLY}, one
        assert [other.default for other in others] == [inspect.Parameter.empty, None, None], one


def test_nothing_is_marked_as_compiled():
    assert [place for place, node in found(ast.Attribute) if node.attr == "_compiled"] == []


def test_settings_and_threads_are_dspys_own():
    # The server's processes are uvicorn's, which keeps the main thread; another one waits for the first to answer, and
    # the model has threads of its own, which no store that hangs can hold.
    allowed = ("radio_dspy/serving/running.py", "radio_dspy/serving/batching.py")
    threads = calls("configure", "ThreadPoolExecutor", "ThreadPool", "Thread")
    assert [one for one in threads if not one.startswith(allowed)] == []
    libraries = [place for place, module in imported() if module.startswith(("concurrent", "multiprocessing"))]
    assert [one for one in libraries if not one.startswith(allowed)] == []
    stores = [
        place
        for place, node in found(ast.Attribute)
        if node.attr == "trace" and (isinstance(node.ctx, ast.Store) or "settings" in ast.unparse(node.value))
    ]
    assert stores == []


def test_every_module_can_be_called_both_ways(classes):
    # Reranked gives back whatever kind of thing its first stage gives.
    modules = [one for one in classes if issubclass(one, dspy.Module) and one not in (Predict, Reranked)]
    assert len(modules) > 8
    for one in modules:
        for method in ("forward", "aforward"):
            function = getattr(one, method, None)
            assert function is not None, f"{one} has no {method}"
            assert function.__module__.startswith("radio_dspy"), f"{one} has no {method} of its own"
            assert function.__annotations__["return"] == "dspy.Prediction", f"{one}.{method}"
        assert inspect.iscoroutinefunction(one.aforward)
        ways = [list(inspect.signature(way).parameters.values()) for way in (one.forward, one.aforward)]
        assert ways[0] == ways[1], f"{one}: forward and aforward take different arguments"


def test_no_field_has_a_name_that_dspy_needs():
    given = [
        f"{place} {keyword.arg}"
        for place, node in found(ast.Call)
        if ast.unparse(node.func).rpartition(".")[2] in ("Prediction", "Example")
        for keyword in node.keywords
        if keyword.arg in TAKEN
    ]
    assert given == []
    assert [one for task in tasks() for one in task.fields if one in TAKEN] == []


def tasks() -> list[type[dspy.Signature]]:
    return [one for one in vars(signatures).values() if inspect.isclass(one) and issubclass(one, dspy.Signature)]


def test_signatures_say_what_is_asked():
    assert len(tasks()) >= 6
    for task in tasks():
        assert task.__doc__, task
        assert task.instructions == inspect.cleandoc(task.__doc__)
        for name, field in task.fields.items():
            assert field.annotation is not None
            # "question" says it all; of a field without a description DSPy makes "${name}".
            described = not field.json_schema_extra["desc"].startswith("${")
            assert described or name == "question", f"{task.__name__}.{name}"


def test_litellm_writes_no_text_and_its_errors_are_not_known():
    assert calls("completion", "acompletion", "text_completion", "atext_completion", "responses") == []
    handlers = [(place, ast.unparse(node.type)) for place, node in found(ast.ExceptHandler) if node.type is not None]
    lookups = "radio_dspy/lm/opening.py"  # whether a provider is known: nobody is asked
    assert [place for place, kind in handlers if "litellm" in kind and not place.startswith(lookups)] == []


def test_an_embedder_is_never_left_to_dspys_cache():
    """It would tell two local models of one class apart by nothing."""
    asked = [node for _, node in found(ast.Call) if ast.unparse(node.func) in ("dspy.Embedder", "Embedder")]
    assert [node for node in asked if "caching" not in {keyword.arg for keyword in node.keywords}] == []


def test_nothing_is_pickled_or_loaded_unsafely():
    unsafe = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    assert [place for place, module in imported() if module.partition(".")[0] in unsafe] == []
    allowed = [
        f"{place} {keyword.arg}"
        for place, node in found(ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("allow_pickle", "allow_unsafe_lm_state", "trust_remote_code", "save_program")
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
        # Handed on, since the caller has asked for it; or the rule that a checkpoint's own setting must be empty.
        and ast.unparse(keyword.value) not in (keyword.arg, "_is_empty")
    ]
    assert allowed == []


def test_the_tests_have_no_key_and_look_up_no_prices():
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    keys = re.compile(r"\b(?:sk-[A-Za-z0-9]{20}|AIza[\w-]{30}|hf_[A-Za-z]{30})")
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]:
        assert not keys.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("rerank", [radio_dspy.NoRerank, radio_dspy.LMRerank])
def test_one_passage_is_ranked_and_none_is_no_error(rerank):
    one = Passage("a", "Ice floats.")
    assert Ranking.from_scores("why?", [one], [0.3]).ids == ("a",)
    assert Ranking.from_scores("why?", [], []).ids == ()
    with dspy.context(lm=UnaskedLM([])):
        ranked = rerank()("why?", [one])
        assert (ranked.passages, len(ranked.scores)) == ([one], 1)
        assert rerank()("why?", []).passages == []


def test_nothing_is_printed_asserted_or_swallowed():
    assert [
        place for place, node in found(ast.Call) if ast.unparse(node.func) in ("print", "input", "breakpoint")
    ] == []
    assert [place for place, _ in found(ast.Assert)] == []
    swallowed = [
        place
        for place, node in found(ast.ExceptHandler)
        if node.type is None
        or (ast.unparse(node.type) in ("Exception", "BaseException") and isinstance(node.body[0], ast.Pass))
    ]
    assert swallowed == []
    suppressed = [ast.unparse(node) for _, node in found(ast.Call) if ast.unparse(node.func).endswith("suppress")]
    assert [one for one in suppressed if "(Exception" in one or "(BaseException" in one] == []


def test_no_setting_comes_out_of_a_dict():
    """No attribute is set from ``**kwargs``, and no function takes a bag of settings."""
    bags = []
    for place, node in found(ast.FunctionDef, ast.AsyncFunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bags += [f"{place} {one.arg}" for one in arguments if one.arg in ("config", "cfg", "settings_dict", "kwargs")]
        if node.args.kwarg is not None:
            inside = {ast.unparse(one.func) for one in ast.walk(node) if isinstance(one, ast.Call)}
            bags += [f"{place} sets attributes" for name in inside if name in ("setattr", "self.__dict__.update")]
    assert bags == []
