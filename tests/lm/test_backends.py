"""Every kind of provider, on both of DSPy's engines, against loopback servers that speak the providers' formats."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.core.errors import LanguageModelError
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.lm.signatures import ExtractRationale, GenerateAnswer, RankPassages
from radio_dspy.runs.run import Run
from tests.settings import radio_of
from tests.stub_servers import (
    AWAY,
    BROKEN,
    BUSY,
    COMPLETION_TOKENS,
    DROPPED,
    GEMINI_WRONG_KEY,
    KEY,
    NO_SUCH_MODEL,
    PROMPT_TOKENS,
    SLOW,
    WRONG_KEY,
    Fault,
    StubServer,
)

# LiteLLM declares Ollama's replies in a way that Pydantic warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning")

NATIVE, LITELLM = "auto", "litellm"  # "auto" takes DSPy's own engine for all of these providers


@dataclass(frozen=True)
class Backend:
    """A provider: its model's name, and per engine what follows the server's address and which path is then asked."""

    name: str
    base: dict[str, str]
    path: dict[str, str]


def same(value: str) -> dict[str, str]:
    return {NATIVE: value, LITELLM: value}


BACKENDS = {
    "openai": Backend("openai/gpt-4o-mini", same("/v1"), same("/v1/chat/completions")),
    "anthropic": Backend("anthropic/claude-sonnet-4-5", {NATIVE: "/v1", LITELLM: ""}, same("/v1/messages")),
    "gemini": Backend(
        "gemini/gemini-2.5-flash", same("/v1beta"), same("/v1beta/models/gemini-2.5-flash:generateContent")
    ),
    "ollama": Backend(
        "ollama_chat/llama3.2",
        {NATIVE: "/v1", LITELLM: ""},
        {NATIVE: "/v1/chat/completions", LITELLM: "/api/chat"},
    ),
    "ollama-generate": Backend(  # to DSPy's own engine the same as ollama_chat/
        "ollama/llama3.2",
        {LITELLM: ""},
        {LITELLM: "/api/generate"},
    ),
    "vllm": Backend("hosted_vllm/Qwen/Qwen2.5-7B-Instruct", same("/v1"), same("/v1/chat/completions")),
}
ROWS = [(backend, engine) for backend, one in BACKENDS.items() for engine in one.base]
every_row = pytest.mark.parametrize(("backend", "engine"), ROWS, ids=["-".join(row) for row in ROWS])
# What an error calls a provider where that is not the first part of the model's name.
PROVIDERS = {("openai", NATIVE): "openai-chat", ("ollama", NATIVE): "ollama", ("vllm", NATIVE): "vllm"}
ADAPTERS = {"chat": dspy.ChatAdapter, "plain": radio.PlainAdapter}

# One brain for all: what it says to each task, whoever carries the question and in whatever form.
RATIONALE, ANSWER, ORDER = "Hot water kills yeast, so the dough stays flat.", "dead yeast", [2, 0, 1]
TASKS = {
    ExtractRationale.instructions: ("rationale", RATIONALE),
    GenerateAnswer.instructions: ("answer", ANSWER),
    RankPassages.instructions: ("order", ORDER),
}


def brain(prompt: str) -> str:
    told = [task for instructions, task in TASKS.items() if instructions.splitlines()[0] in prompt]
    if not told:
        return "hello"
    ((field, value),) = told
    if "JSON object" in prompt:
        return json.dumps({field: value})
    if "[[ ##" in prompt:
        return f"[[ ## {field} ## ]]\n{value}\n\n[[ ## completed ## ]]"
    return str(value)


def lm_of(server: StubServer, backend: str, engine: str, **settings) -> dspy.LM:
    one = BACKENDS[backend]
    address = {"api_base": server.url + one.base[engine], "api_key": KEY}
    return dspy.LM(one.name, engine=engine, **{**address, "cache": False, "num_retries": 0, **settings})


@pytest.fixture
def server():
    with StubServer(brain) as stub:
        yield stub


@pytest.fixture(autouse=True)
def _no_address_of_ones_own(monkeypatch):
    for provider in ("OPENAI", "ANTHROPIC", "GEMINI", "GOOGLE", "OLLAMA", "OLLAMA_CHAT", "HOSTED_VLLM"):
        for name in ("API_BASE", "BASE_URL", "API_KEY"):
            monkeypatch.delenv(f"{provider}_{name}", raising=False)


class TestAnswers:
    @every_row
    @pytest.mark.parametrize("adapter", ADAPTERS)
    def test_every_module_reads_the_same_from_every_backend(self, server, index, backend, engine, adapter):
        program = radio.RetrieveRerankAnswer(index, radio.NoRerank(), candidates=5, k=3)
        with dspy.context(lm=lm_of(server, backend, engine), adapter=ADAPTERS[adapter]()):
            rationale = radio.RationaleExtractor()(question="Why was it flat?", answers=["dead yeast"]).rationale
            answer = program(question="Why was it flat?").answer
            order = radio.LMRerank()("Why was it flat?", ["ice", "salt", "yeast"]).indices
        assert (rationale, answer, order) == (RATIONALE, ANSWER, ORDER)
        # One request each: nothing was asked twice for want of a format, and each at the provider's own address.
        assert [call.path for call in server.asked] == [BACKENDS[backend].path[engine]] * 3

    @every_row
    def test_asynchronous_calls_too(self, server, index, backend, engine):
        program = radio.RetrieveRerankAnswer(index, radio.NoRerank(), candidates=5, k=3)
        with dspy.context(lm=lm_of(server, backend, engine)):
            assert asyncio.run(program.acall(question="Why was it flat?")).answer == ANSWER

    @every_row
    def test_the_tokens_are_counted(self, server, backend, engine):
        with dspy.context(lm=lm_of(server, backend, engine)), dspy.track_usage() as tracker:
            for _ in range(2):
                radio.RationaleExtractor()(question="Why was it flat?", answers=["dead yeast"])
        ((name, used),) = tracker.get_total_tokens().items()
        assert name == BACKENDS[backend].name
        assert (used["prompt_tokens"], used["completion_tokens"]) == (2 * PROMPT_TOKENS, 2 * COMPLETION_TOKENS)

    @every_row
    def test_a_call_has_a_price_where_the_provider_has_one(self, server, backend, engine):
        lm = lm_of(server, backend, engine)
        lm("Hello?")
        assert bool(lm.history[-1]["cost"]) is (backend in ("openai", "anthropic", "gemini"))

    @every_row
    def test_the_key_travels_in_a_header_and_nowhere_else(self, server, backend, engine):
        lm_of(server, backend, engine)("Hello?")
        (call,) = server.asked
        if (backend, engine) != ("ollama-generate", LITELLM):
            assert any(KEY in value for value in call.headers.values())
        assert KEY not in call.path + json.dumps(call.body)


class TestSampling:
    """What was set is what is sent; where a provider has no such setting, it is said so."""

    @every_row
    def test_the_lms_own_settings_are_sent(self, server, backend, engine):
        lm = lm_of(server, backend, engine, temperature=0.3, max_tokens=50)
        with dspy.context(lm=lm):
            radio.RationaleExtractor()(question="Why was it flat?", answers=["dead yeast"])
        assert server.asked[0].sampling == {"temperature": 0.3, "max_tokens": 50}

    @every_row
    def test_an_lm_without_any_gets_the_papers(self, server, backend, engine):
        with dspy.context(lm=lm_of(server, backend, engine)):
            radio.RationaleExtractor()(question="Why was it flat?", answers=["dead yeast"])
        thinks = backend == "gemini"  # Gemini 2.5 is a reasoning LM: it is sent nothing of ours
        assert server.asked[0].sampling == ({} if thinks else {"temperature": 0.2, "max_tokens": 1000})

    @every_row
    def test_a_seed_is_sent_where_the_provider_takes_one(self, server, backend, engine):
        lm = lm_of(server, backend, engine, seed=7, max_tokens=50)
        if (backend, engine) == ("anthropic", LITELLM):  # Anthropic knows no seed: LiteLLM refuses it
            with pytest.raises(dspy.LMUnsupportedFeatureError, match="seed"):
                lm("Hello?")
            assert server.calls == []
        elif backend == "anthropic":  # DSPy's own engine leaves it out and says so
            lm("Hello?")
            assert "seed" not in server.asked[0].body
            assert [(one.field, one.action) for one in lm.history[-1]["adaptations"]] == [("config.seed", "dropped")]
        else:
            lm("Hello?")
            assert server.asked[0].sampling["seed"] == 7

    def test_an_option_that_takes_the_call_to_litellm_changes_the_form_of_the_address_too(self, server):
        settings = {"seed": 7, "max_tokens": 50, "drop_params": True}  # LiteLLM's option: leave out what cannot be sent
        with pytest.raises(dspy.LMError):
            lm_of(server, "anthropic", NATIVE, **settings)("Hello?")
        assert server.asked[-1].path == "/v1/v1/messages"
        assert lm_of(server, "anthropic", NATIVE, **settings, api_base=server.url)("Hello?") == ["hello"]
        assert "seed" not in server.asked[-1].body


PASSING = {"429": BUSY, "500": BROKEN, "503": AWAY, "slow": SLOW, "dropped": DROPPED}


class TestFaults:
    def test_what_passes_is_tried_again(self):
        """All rows and faults at once: the pause between two tries is then waited only once."""
        import litellm  # noqa: F401  # its import takes seconds, which no time-out should see

        def ask(case):
            backend, engine, fault = case
            with StubServer(brain) as server:
                server.faults.append(PASSING[fault])
                reply = lm_of(server, backend, engine, num_retries=3, timeout=1.0)("Hello?")
                return reply, len(server.asked) > 1

        cases = [(*row, fault) for row in ROWS for fault in PASSING]
        with ThreadPoolExecutor(len(cases)) as threads:
            got = dict(zip(cases, threads.map(ask, cases), strict=True))
        assert got == dict.fromkeys(cases, (["hello"], True))

    def test_dspys_engine_waits_as_long_as_the_server_asks(self, server):
        server.faults.append(Fault(429, retry_after=3))  # by itself it would wait a second
        started = time.monotonic()
        assert lm_of(server, "openai", NATIVE, num_retries=1)("Hello?") == ["hello"]
        assert time.monotonic() - started >= 3

    @pytest.mark.parametrize("engine", [NATIVE, LITELLM])
    def test_how_often_is_num_retries(self, server, engine):
        server.always = BUSY
        with pytest.raises(dspy.LMRateLimitError):
            lm_of(server, "openai", engine, num_retries=1)("Hello?")
        assert len(server.asked) == 2

    @every_row
    def test_the_servers_own_pause_is_known_to_dspys_engine_only(self, server, backend, engine):
        server.always = BUSY
        with pytest.raises(dspy.LMRateLimitError) as caught:
            lm_of(server, backend, engine)("Hello?")
        assert caught.value.retry_after == (0.0 if engine == NATIVE else None)

    @every_row
    def test_a_server_that_is_not_there(self, backend, engine):
        with StubServer(brain) as gone:
            pass
        with pytest.raises(dspy.LMError) as caught:
            lm_of(gone, backend, engine)("Hello?")
        assert BACKENDS[backend].name.partition("/")[2] in str(caught.value)


QUESTIONS = [(f"q{number}", f"Why was loaf {number} flat?", ("dead yeast",)) for number in range(20)]


def explain_all(lm, folder, **options):
    options = {"check": False, **options}
    return explain(QUESTIONS, Run(folder), lm=lm, extractor=radio.RationaleExtractor(), given={}, **options)


class TestRationales:
    @every_row
    def test_twenty_questions_from_every_backend(self, server, tmp_path, backend, engine):
        found, counts = explain_all(lm_of(server, backend, engine), tmp_path, num_threads=4)
        assert found == {key: RATIONALE for key, _, _ in QUESTIONS}
        assert (counts.written, counts.cached, len(server.asked)) == (20, 0, 20)
        records = Run(tmp_path).read_records("rationales")
        assert {(one["prompt_tokens"], one["completion_tokens"]) for one in records} == {
            (PROMPT_TOKENS, COMPLETION_TOKENS)
        }

    @every_row
    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (WRONG_KEY, dspy.LMAuthError),
            (NO_SUCH_MODEL, dspy.LMUnsupportedModelError),
            (BUSY, dspy.LMRateLimitError),
            (BROKEN, dspy.LMServerError),
            (DROPPED, (dspy.LMTransportError, dspy.LMServerError)),
            (SLOW, (dspy.LMTransportError, dspy.LMTimeoutError)),
        ],
        ids=["401", "404", "429", "500", "dropped", "slow"],
    )
    def test_the_first_failure_that_stays_ends_the_run(self, server, tmp_path, backend, engine, fault, kind):
        import litellm  # noqa: F401  # its import takes seconds, which no time-out should see

        server.always = fault
        with pytest.raises(LanguageModelError) as caught:
            explain_all(lm_of(server, backend, engine, timeout=1.0), tmp_path)
        assert len(server.asked) == 1
        assert Run(tmp_path).read_records("rationales") == []
        name, failure, error = BACKENDS[backend].name, caught.value, caught.value.__cause__
        assert isinstance(error, kind)
        assert isinstance(failure, dspy.LMError)
        assert (failure.model, failure.status, failure.code) == (name, error.status, error.code)
        provider, _, model = name.partition("/")
        if (backend, engine, fault) == ("gemini", LITELLM, SLOW):  # LiteLLM loses both there: docs/backends.md says so
            assert error.provider == "litellm-httpx-handler"
        else:
            assert failure.provider == error.provider == PROVIDERS.get((backend, engine), provider)
            assert model in str(error)
        assert str(failure).startswith(f"{name} failed ({type(error).__name__}: ")
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize("engine", [NATIVE, LITELLM])
    def test_with_threads_no_more_than_what_is_under_way(self, server, tmp_path, engine):
        server.always = WRONG_KEY
        with pytest.raises(LanguageModelError, match="openai/gpt-4o-mini failed"):
            explain_all(lm_of(server, "openai", engine), tmp_path, num_threads=4)
        assert len(server.asked) <= 4

    @pytest.mark.parametrize(("engine", "asked"), [(NATIVE, 3), (LITELLM, 1)])
    def test_a_key_that_gemini_does_not_know_costs_no_question_its_rationale(self, server, tmp_path, engine, asked):
        """Gemini calls it an invalid request, as it would call one bad question: after three in a row it is the LM."""
        server.always = GEMINI_WRONG_KEY
        with pytest.raises(LanguageModelError, match="API key not valid"):
            explain_all(lm_of(server, "gemini", engine), tmp_path)
        assert len(server.asked) == asked
        server.always = None
        found, counts = explain_all(lm_of(server, "gemini", engine), tmp_path)
        assert (counts.written, counts.reused, counts.refused) == (20, 0, 0)
        assert found == {key: RATIONALE for key, _, _ in QUESTIONS}


def written_to(*places) -> bytes:
    files = [one for place in places for one in (place.rglob("*") if place.is_dir() else [place]) if one.is_file()]
    return b"\n".join(one.read_bytes() for one in files)


def holds(written: bytes, *texts: str) -> list[bool]:
    return [text.encode() in written for text in texts]


# What LiteLLM reads an address from, and what follows the server's address in it.
VARIABLES = {
    "openai/gpt-4o-mini": {"OPENAI_API_BASE": "/v1"},
    "anthropic/claude-sonnet-4-5": {"ANTHROPIC_API_BASE": ""},
    "gemini/gemini-2.5-flash": {"GEMINI_API_BASE": "/v1beta"},
    "ollama/llama3.2": {"OLLAMA_API_BASE": ""},
    # DSPy hands a call to LiteLLM where it finds the variable of the prefix, and LiteLLM reads the other one.
    "ollama_chat/llama3.2": {"OLLAMA_API_BASE": "", "OLLAMA_CHAT_API_BASE": ""},
    "hosted_vllm/Qwen/Qwen2.5-7B-Instruct": {"HOSTED_VLLM_API_BASE": "/v1"},
}


class TestSwap:
    """The LM is one string; where it is, and with which key, is the environment's business."""

    @pytest.fixture
    def student(self, index, small):
        return radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=5, k=3)

    def test_one_program_takes_any_by_its_name_alone(self, student, tmp_path, monkeypatch):
        answers, asked = [], []
        for provider in ("OPENAI", "ANTHROPIC", "GEMINI", "HOSTED_VLLM"):
            monkeypatch.setenv(f"{provider}_API_KEY", KEY)
        for name, variables in VARIABLES.items():
            with StubServer(brain) as server, monkeypatch.context() as patch:
                for variable, path in variables.items():
                    patch.setenv(variable, server.url + path)
                student.set_lm(dspy.LM(name))
                answers.append(student(question="Why was the third loaf flat?").answer)
                asked.append(len(server.asked))
                student.save(tmp_path / f"{len(asked)}.json")
        assert answers == [ANSWER] * len(VARIABLES)
        assert asked == [1] * len(VARIABLES)
        # DSPy's own state files name the models, and no more.
        assert all(holds(written_to(tmp_path), *VARIABLES))
        assert holds(written_to(tmp_path), KEY, "127.0.0.1") == [False, False]

    @pytest.mark.parametrize(("backend", "engine"), [("openai", NATIVE), ("ollama", LITELLM)])
    def test_what_this_library_writes_holds_neither_address_nor_key(self, server, student, tmp_path, backend, engine):
        lm = lm_of(server, backend, engine)
        student.set_lm(lm)
        explain_all(lm, tmp_path / "run")
        radio.save(student, tmp_path / "saved")
        assert student.answer.lm is lm
        secrets = (KEY, "127.0.0.1", server.url.removeprefix("http://"))
        assert holds(written_to(tmp_path), RATIONALE, *secrets) == [True, False, False, False]

    def test_nor_does_a_whole_compile(self, server, student, small, topic, tmp_path):
        lm = lm_of(server, "openai", NATIVE)
        student.set_lm(lm)
        settings = {"epochs": 1, "max_length": 32, "candidates": 8, "gate": False}
        optimizer = radio_of(rationale_lm=lm, encoder=small, run_dir=tmp_path / "run", **settings)
        aligned = optimizer.compile(student, trainset=topic.train[:4], valset=topic.test[:2])
        radio.save(aligned, tmp_path / "saved")
        secrets = (KEY, server.url.removeprefix("http://"))
        assert holds(written_to(tmp_path), RATIONALE, *secrets) == [True, False, False]

    @pytest.mark.parametrize("engine", [NATIVE, LITELLM])
    def test_a_declared_server_has_a_name_and_its_address_is_in_no_state(self, server, student, tmp_path, engine):
        from dspy import lm15

        access = lm15.AccessPolicy(
            provider="own-server",
            base_url=f"{server.url}/v1",
            auth_modes=("bearer",),
            supports=lm15.EndpointSupport(complete=True, stream=True, models=True),
        )
        compat = lm15.OpenAIChatCompat()
        lm15.register_provider(lm15.ProviderDefinition.chat(access, compat=compat, placeholder_key="none"))
        try:
            student.set_lm(dspy.LM("own-server/qwen", engine=engine, cache=False))
            student.save(tmp_path / "state.json")
            assert holds(written_to(tmp_path), "own-server/qwen", "127.0.0.1") == [True, False]
            student.set_lm(None)
            student.load(tmp_path / "state.json")
            assert student(question="Why was the loaf flat?").answer == ANSWER
        finally:
            lm15.unregister_provider("own-server")
        assert [call.path for call in server.asked] == ["/v1/chat/completions"]

    def test_dspys_own_save_keeps_the_address_and_not_the_key(self, server, student, tmp_path):
        state = tmp_path / "state.json"
        student.set_lm(lm_of(server, "vllm", NATIVE))
        student.save(state)
        assert holds(written_to(state), server.url, KEY) == [True, False]
        student.load(state)
        assert "api_base" not in student.answer.lm.kwargs  # it would now ask the provider's public address
        student.set_lm(None)
        student.save(state)
        assert holds(written_to(state), server.url, KEY) == [False, False]


class TestResponseCache:
    """DSPy's response cache knows an LM by its name and settings, not by its address."""

    @pytest.fixture
    def two(self):
        with StubServer(lambda _: "one") as one, StubServer(lambda _: "two") as other:
            yield one, other

    @pytest.fixture
    def prompt(self, request):
        """A prompt that no other test has had answered: the cache is the whole session's."""
        return f"Who? {request.node.name}"

    @staticmethod
    def at(server, name="hosted_vllm/m", **settings):
        return dspy.LM(name, api_base=f"{server.url}/v1", api_key=KEY, **settings)

    @pytest.mark.parametrize("engine", [NATIVE, LITELLM])
    def test_two_servers_under_one_name_share_their_answers(self, two, prompt, engine):
        assert [self.at(one, engine=engine)(prompt) for one in two] == [["one"], ["one"]]
        assert [len(one.asked) for one in two] == [1, 0]

    @pytest.mark.parametrize("engine", [NATIVE, LITELLM])
    @pytest.mark.parametrize(
        "apart", [{"cache": False}, {"name": "hosted_vllm/m-awq"}, {"rollout_id": 1}], ids=["cache", "name", "rollout"]
    )
    def test_what_keeps_them_apart(self, two, prompt, engine, apart):
        first, other = two
        assert self.at(first, engine=engine, temperature=0.5)(prompt) == ["one"]
        assert self.at(other, engine=engine, temperature=0.5, **apart)(prompt) == ["two"]

    def test_a_run_folder_knows_an_lm_by_its_name_too(self, two, tmp_path):
        first, other = two
        with dspy.context(adapter=radio.PlainAdapter()):
            assert set(explain_all(self.at(first, cache=False), tmp_path)[0].values()) == {"one"}
            found, counts = explain_all(self.at(other, cache=False), tmp_path)
            assert (set(found.values()), counts.reused, other.asked) == ({"one"}, 20, [])
            renamed = self.at(other, "hosted_vllm/m-awq", cache=False)
            assert set(explain_all(renamed, tmp_path)[0].values()) == {"two"}

    def test_answers_from_the_cache_are_counted_as_such(self, two, tmp_path):
        first, other = two
        with dspy.context(adapter=radio.PlainAdapter()):
            assert explain_all(self.at(first), tmp_path / "first")[1].cached == 0
            found, counts = explain_all(self.at(other), tmp_path / "other")
        assert (set(found.values()), counts.written, counts.cached) == ({"one"}, 20, 20)
