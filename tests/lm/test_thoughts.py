"""What a reasoning LM thinks aloud is no part of its reply; a text that only speaks of such tags stays as it is."""

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.lm.reasoning import is_reasoning
from radio_dspy.lm.replies import read
from radio_dspy.lm.thoughts import without_thoughts
from tests.fault_server import FaultServer

ENGINES = ("auto", "litellm")
CHAT = "[[ ## answer ## ]]\n{}\n\n[[ ## completed ## ]]"


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ("<think>\nIs it dawn? No.\n</think>\n\nnoon", "noon"),
        ("<THINKING>Dusk?</THINKING> noon", "noon"),
        ("[THINK]Dusk?[/THINK]noon", "noon"),
        ("\u25c1think\u25b7Dusk?\u25c1/think\u25b7noon", "noon"),
        ("It may be dusk.\n</think>\nnoon", "noon"),
        ("<think></think>noon", "noon"),
        ("<think>one</think><think>two</think>noon", "noon"),
        ("<|channel|>analysis<|message|>Dusk?<|end|><|start|>assistant<|channel|>final<|message|>noon", "noon"),
        ("<think>\nDusk?\n</think>\n<answer>\nnoon\n</answer>", "noon"),
        ("<think>Dusk?</think><answer><|begin_of_box|>noon<|end_of_box|></answer>", "noon"),
        ("<|begin_of_thought|>Dusk?<|end_of_thought|>\n<|begin_of_solution|>noon<|end_of_solution|>", "noon"),
        ("<|START_THINKING|>Dusk?<|END_THINKING|><|START_RESPONSE|>noon<|END_RESPONSE|>", "noon"),
        ("<thinking>Dusk?</thinking>\n<reflection>No.</reflection>\n<output>noon</output>", "noon"),
        ("<|inner_prefix|>Dusk?<|inner_suffix|>noon", "noon"),
        ("<mm:think>Dusk?</mm:think>noon", "noon"),
        ("<|im_start|>assistant\n<think>Dusk?</think>noon", "noon"),
        ("\ufeff<think>Dusk?</think>noon", "noon"),
        ("<think>Dusk?</thinking>noon", "noon"),
        ("analysiswe need the hour.assistantfinalnoon", "noon"),
        ("Here is my thought process:\nDusk?\n\nHere is my response:\nnoon", "noon"),
        ("<think>Dusk?</think>noon\n<think>\nOr is it", "noon"),
        ("<think>Dusk?</think>noon<think>Or is it", "noon"),
        ("<think>Dusk?</think><think>Or is it", ""),
        ("<think>Dusk?</think>\n" * 300 + "noon", "noon"),
        ("<think>Dusk?</think>no" * 30 + "on", "no" * 30 + "on"),
        ("<seed:think>Dusk?</seed:think>noon", "noon"),
        ("<deep_think>Dusk?</deep_think>noon", "noon"),
        ("<think>Dusk?</think>\n<response>noon</response>", "noon"),
        ("<think>Dusk?</think>The tag <think> opens.", "The tag <think> opens."),
        ("[Reasoning] It stands south.", None),
        ("analysis of the sun's height", None),
        ("<answer>noon</answer>", None),
        ("<|im_start|> opens a turn of a chat.", None),
        ("<think>It may be dusk, or", ""),
        ("<|channel|>analysis<|message|>It may be dusk, or", ""),
        ("noon", "noon"),
        ("The tag <think> opens what Qwen thinks, and </think> ends it.", None),
        ("Write `<think>` first.", None),
        ("if a < think and b > 2", None),
        ("", ""),
    ],
)
def test_thoughts_are_left_out(reply, left):
    assert without_thoughts(reply) == (reply if left is None else left)


@pytest.mark.parametrize(
    "hostile",
    [
        "<think>" * 20_000,
        "</think>" * 20_000,
        "<think>a</think>" * 20_000,
        "<" * 200_000,
        "<|a|>" + " " * 200_000 + "x<think>",
        "analysis" * 20_000,
        "<think></think>" + "<answer>" * 20_000,
    ],
    ids=range(7),
)
def test_a_loop_of_tags_takes_no_time(hostile):
    without_thoughts(hostile)  # pytest's time limit holds it


def ask(reply, engine, adapter, module, **inputs):
    with FaultServer(lambda prompt: reply) as server:
        url = f"{server.url}/v1"
        lm = dspy.LM("hosted_vllm/small", api_base=url, api_key="none", cache=False, num_retries=0, engine=engine)
        with dspy.context(lm=lm, adapter=adapter):
            return module(**inputs)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("adapter", "reply"),
    [
        (radio.PlainAdapter(), "noon"),
        (dspy.ChatAdapter(), CHAT.format("noon")),
        (dspy.JSONAdapter(), '{"answer": "noon"}'),
        (dspy.ChatAdapter(), CHAT.format("<think>again?</think>noon")),
    ],
    ids=["plain", "chat", "json", "inside a field"],
)
def test_a_programs_answer_has_none(index, engine, adapter, reply):
    program = radio.RetrieveRerankAnswer(index, radio.NoRerank(), candidates=3, k=1)
    thoughtful = f"<think>\nDusk? {{no}} [[no]]\n</think>\n\n{reply}"
    assert ask(thoughtful, engine, adapter, program, question="When is the sun highest?").answer == "noon"


def test_a_field_of_dspys_xml_is_no_thought():
    reply = "<think>Dusk?</think>\n<reasoning>\nIt stands south.\n</reasoning>\n\n<answer>\nnoon\n</answer>"
    given = dspy.ChainOfThought("question -> answer")
    with FaultServer(lambda prompt: reply) as server:
        lm = dspy.LM("openai/small", api_base=server.url, api_key="none", cache=False, num_retries=0)
        with dspy.context(lm=lm, adapter=dspy.XMLAdapter()):
            assert read(given, "answer", question="When?") == ("noon", "", 1)
            assert read(given, "reasoning", question="When?").value == "It stands south."


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rationale_has_none_and_one_cut_off_is_empty(engine):
    extractor = radio.RationaleExtractor()
    asked = {"question": "When is the sun highest?", "answers": ["noon"]}
    whole = ask("<think>Dusk?</think>At noon it stands south.", engine, radio.PlainAdapter(), extractor, **asked)
    assert whole.rationale == "At noon it stands south."
    cut = ask("<think>It may be dusk, or", engine, radio.PlainAdapter(), extractor, **asked)
    assert cut.rationale == ""


@pytest.mark.parametrize(
    ("model", "thinks"),
    [
        ("openai/o3-mini", True),
        ("openai/gpt-5-mini", True),
        ("deepseek/deepseek-reasoner", True),
        ("ollama_chat/gpt-oss:20b", True),
        ("hosted_vllm/Qwen/Qwen3-8B", True),
        ("ollama_chat/qwen3:8b", True),
        ("hosted_vllm/zai-org/GLM-4.6", True),
        ("hosted_vllm/HuggingFaceTB/SmolLM3-3B", True),
        ("hosted_vllm/XiaomiMiMo/MiMo-7B-RL", True),
        ("hosted_vllm/zai-org/GLM-5", True),
        ("hosted_vllm/moonshotai/Kimi-K2-Thinking", True),
        ("hosted_vllm/MiniMaxAI/MiniMax-M2", True),
        ("hosted_vllm/tencent/Hunyuan-A13B-Instruct", True),
        ("hosted_vllm/ByteDance-Seed/Seed-OSS-36B-Instruct", True),
        ("hosted_vllm/nvidia/NVIDIA-Nemotron-Nano-9B-v2", True),
        ("hosted_vllm/allenai/Olmo-3-7B-Think", True),
        ("hosted_vllm/ibm-granite/granite-3.3-8b-instruct", False),
        ("hosted_vllm/Qwen/Qwen3-4B-Instruct-2507", False),
        ("hosted_vllm/Qwen/Qwen3-Coder-30B-A3B-Instruct", False),
        ("openai/gpt-4o-mini", False),
        ("openai/gpt-5-chat-latest", False),
        ("hosted_vllm/Qwen/Qwen2.5-7B-Instruct", False),
        ("ollama_chat/llama3.2", False),
    ],
)
def test_nothing_of_ours_is_sent_to_a_reasoning_lm(model, thinks):
    lm = dspy.LM(model, api_key="none")
    assert is_reasoning(lm) is thinks
    with dspy.context(lm=lm):
        sent = radio.RationaleExtractor().settings()
    assert sent == ({} if thinks else {"temperature": 0.2, "max_tokens": 1000})


@pytest.mark.parametrize(
    ("settings", "thinks"),
    [
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning": {"effort": "high"}}, True),
        ({"reasoning": {"enabled": False}}, False),
        ({"thinking": {"type": "enabled"}}, True),
    ],
)
def test_what_a_server_of_ones_own_is_told(settings, thinks):
    for model in ("hosted_vllm/small", "hosted_vllm/Qwen/Qwen3-8B"):
        assert is_reasoning(dspy.LM(model, api_key="none", extra_body=settings)) is thinks


def test_an_lm_of_any_name_that_thinks_is_known_by_its_replies():
    extractor, thoughtful = radio.RationaleExtractor(), "<think>Dusk?</think>It stands south."
    with FaultServer(lambda prompt: thoughtful) as server:
        lm = dspy.LM("hosted_vllm/nameless", api_base=f"{server.url}/v1", api_key="none", cache=False)
        with dspy.context(lm=lm, adapter=radio.PlainAdapter()):
            assert extractor.settings() == {"temperature": 0.2, "max_tokens": 1000}
            assert extractor(question="When?", answers=["noon"]).rationale == "It stands south."
            assert extractor.settings() == {}
            assert extractor.settings(seen=False) == {"temperature": 0.2, "max_tokens": 1000}


def test_the_users_own_settings_win():
    lm = dspy.LM("openai/gpt-5-mini", api_key="none", temperature=1.0, max_tokens=16000)
    with dspy.context(lm=lm):
        assert radio.RationaleExtractor(max_tokens=20_000).settings() == {"max_tokens": 20_000}


@pytest.mark.parametrize(
    "reply",
    [
        "<\uff5cAssistant\uff5c><think>cold</think>hot water<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<s><think>cold</think>hot water</s>",
        "<|im_start|>assistant\n<think>cold</think>\nhot water<|im_end|>",
        "<unused94>thought\ncold<unused95>hot water",
        "<think>cold</think>\n<answer>hot water",
        "<think>cold</think><final_answer>hot water</final_answer><|im_end|>",
        "<start_of_turn>model\n<think>cold</think>hot water<end_of_turn>",
    ],
)
def test_special_tokens_that_a_server_leaves_around_a_reply(reply):
    assert without_thoughts(reply) == "hot water"


@pytest.mark.parametrize("text", ["hot water</s>", "<s>hot</s> water", "<answer>hot water", "water <|im_end|>"])
def test_without_thoughts_a_reply_stays_as_it_is(text):
    assert without_thoughts(text) == text
