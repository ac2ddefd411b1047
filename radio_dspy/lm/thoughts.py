"""Remove the thoughts of a reasoning LM from its reply."""

from __future__ import annotations

import re
from collections.abc import Container

# What families put around their thoughts: a word for thinking in brackets of some kind, and the same with a slash.
_WORD = r"(?:\w{1,20}[:_])?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|analysis|cot)"
_SLASHED = rf"<{_WORD}>|\[think(?:ing)?\]|\u25c1{_WORD}\u25b7"
_TAGS = (
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|channel>thought", "<channel|>"),  # Gemma
    ("<unused94>thought", "<unused95>"),  # MedGemma
    ("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    ("Here's my thought process:", "Here's my response:"),
)
_PAIRS = {start.lower(): end.lower() for start, end in _TAGS}
_START = re.compile(
    rf"(?=[<\[\u25c1H])(?:{_SLASHED}|{'|'.join(re.escape(start) for start, _ in _TAGS)})", re.IGNORECASE
)
_ENDS = "|".join(re.escape(end) for _, end in _TAGS if not end[0].isalpha())
_END = re.compile(rf"(?=[<\[\u25c1])(?:</{_WORD}>|\[/think(?:ing)?\]|\u25c1/{_WORD}\u25b7|{_ENDS})", re.IGNORECASE)
_BEGUN = re.compile(r"[<\[\u25c1][\w:]{0,40}")  # what may become a tag yet
# What a server may leave before thoughts, and what some put around the answer behind them.
_SPECIAL = r"(?:<[|\uff5c][\w\u2581]+[|\uff5c]>|</?s>|<bos>|<eos>|<(?:start|end)_of_turn>)"
_HEADER = re.compile(rf"[\s\ufeff\u200b]*(?:{_SPECIAL}\s*(?:(?:assistant|model)\b\s*)?)*")
_TRAILER = re.compile(rf"(?:\s*{_SPECIAL})+\s*\Z")
_ANSWER = re.compile(
    r"(?:<(answer|response|output|final|final_answer)>|<\|(?:begin_of_solution|start_response|begin_of_box)\|>)(.*)"
    r"(?:</\1>|<\|(?:end_of_solution|end_response|end_of_box)\|>)",
    re.DOTALL | re.IGNORECASE,
)
_CUT_OFF_ANSWER = re.compile(r"<(answer|final|final_answer)>((?:(?!</?\1>).)*)", re.DOTALL | re.IGNORECASE)
_FIELD = re.compile(r"\[\[ ## \w+ ## \]\]\s*\Z")  # DSPy's ChatAdapter
_MOST = 20  # last ends looked at where no tag opens: a loop of them says nothing
_LINE = 500  # characters of a line that are looked at
# gpt-oss: <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
_CHANNEL = r"(analysis|commentary|final)\b[^<\n]{0,100}(?:<\|constrain\|>[^<\n]{0,100})?<\|message\|>"
_FIRST_CHANNEL = re.compile(rf"(?:<\|start\|>assistant)?(?:<\|channel\|> ?)?{_CHANNEL}", re.IGNORECASE)
_NEXT_CHANNEL = re.compile(rf"<\|channel\|> ?{_CHANNEL}", re.IGNORECASE)
_CHANNEL_END = re.compile(r"<\|(?:return|end|call|start)\|>")
# A server dropped the special tokens.
_BARE_CHANNEL = re.compile(r"analysis(?=[A-Z]|\w.*assistantfinal)(?:.*assistantfinal)?", re.DOTALL)


def without_thoughts(text: str, fields: Container[str] = ()) -> str:
    """A reply without its thoughts; empty where it ends before they do.

    Thoughts stand at the start of a reply or of a field, or between two lines that hold nothing but their tags. A text
    that speaks of such a tag, in a sentence or in code, stays as it is.

    Args:
        text: The reply, or the value of a field.
        fields: Names whose tags are the adapter's own, such as ``reasoning`` for DSPy's ``XMLAdapter``.

    Example:
        >>> without_thoughts("<think>Is it A? No, B.</think> B")
        'B'
        >>> without_thoughts("<think>Is it A? No,")
        ''
        >>> without_thoughts("Qwen puts <think> and </think> around its thoughts.")
        'Qwen puts <think> and </think> around its thoughts.'
    """
    if not any(sign in text for sign in "<[\u25c1") and not text.lstrip()[:8].lower().startswith(("analysis", "here")):
        return text  # a stream asks for every piece
    kept = _without_blocks(_from_final_channel(text), fields)
    ends = list(_END.finditer(kept))[-_MOST:]
    lone = [one for one in ends if _name(one) not in fields and _closes(kept, one)]
    if lone and not _START.search(kept, 0, lone[-1].start()):
        kept = kept[lone[-1].end() :]
    if kept == text:
        return text
    kept = _without_tags(_TRAILER.sub("", _without_tags(kept, fields)), fields)
    if (cut_off := _CUT_OFF_ANSWER.fullmatch(kept)) and cut_off[1].lower() not in fields:
        kept = cut_off[2]  # the server stopped at the tag that would have closed it
    return kept.strip()


def _without_blocks(text: str, fields: Container[str]) -> str:
    """A reply without each part of it that a tag opens; what such a tag leaves open reaches to the end."""
    kept, begin, position, thoughtful, fences = "", 0, 0, False, 0
    while tag := _START.search(text, position):
        fences += text.count("```", position, tag.start())
        position = tag.end()
        line = (kept[-_LINE:] + text[max(begin, tag.start() - _LINE) : tag.start()]).rpartition("\n")[2]
        if _name(tag) in fields or not (
            (not kept and _HEADER.fullmatch(text, begin, tag.start()))
            or (not fences % 2 and not line.count("`") % 2 and _opens(text, tag, line, thoughtful))
        ):
            continue
        if kept or not _HEADER.fullmatch(text, begin, tag.start()):
            kept += text[begin : tag.start()]
        begin = position = _end_of(text, tag)
        begin += len(text[begin : begin + _LINE]) - len(text[begin : begin + _LINE].lstrip())
        thoughtful = True
    return kept + text[begin:] if thoughtful else text


def _name(tag: re.Match[str]) -> str:
    """The word in a tag."""
    return tag[0].strip("</>").lower()


def _without_tags(text: str, fields: Container[str]) -> str:
    """The answer without the tags that stand around the whole of it."""
    while (answer := _ANSWER.fullmatch(text.strip())) and str(answer[1]).lower() not in fields:
        text = answer[2]
    return text.strip()


def may_open_thoughts(text: str) -> bool:
    """Whether the start of a reply, as far as it has come, can still become a tag that opens thoughts."""
    start = text.lstrip().lower()
    in_head = start.startswith(("<|channel|>", "<|start|>")) and "<|message|>" not in start
    return (
        in_head
        or _BEGUN.fullmatch(start) is not None
        or any(one.startswith(start) for one in (*_PAIRS, "<|channel|>", "<|start|>"))
    )


def _opens(text: str, tag: re.Match[str], line: str, thoughtful: bool) -> bool:
    """Whether a tag opens thoughts: alone on a line, at a field's start, or attached in a reply that has some."""
    after = text[tag.end() : tag.end() + 100].partition("\n")[0]
    begins = not line.strip() and not after.strip()
    quoted = line[-1:] in tuple("\"'(\u201c\u2018\xab\u300c")
    attached = thoughtful and not quoted and not (line[-1:].isspace() and after[:1].isspace())
    field = _FIELD.search(text[max(0, tag.start() - 200) : tag.start()])
    return begins or attached or field is not None


def _closes(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag without another that opens ends thoughts: in a sentence there is space or a mark around it."""
    line = text[max(0, tag.start() - _LINE) : tag.start()].rpartition("\n")[2]
    after = text[tag.end() : tag.end() + 100].partition("\n")[0]
    attached = line[-1:].isalnum() or line[-1:] in tuple(".!?:;,")
    at_an_end = not line.strip() or not after.strip()
    return (attached or at_an_end) and not _in_code(text[: tag.start()])


def _end_of(text: str, tag: re.Match[str]) -> int:
    """Where the thoughts end that this tag opens: at their own end, else at another tag's, else with the text."""
    said = tag[0].lower()
    opening, closing = re.escape(said), re.escape(_PAIRS.get(said) or f"{said[0]}/{said[1:]}")
    depth, last = 1, 0
    for match in re.compile(f"({opening})|{closing}", re.IGNORECASE).finditer(text, tag.end()):
        depth += 1 if match[1] else -1
        if not match[1]:
            last = match.end()
            if depth == 0:
                break
    if last:
        return last  # the last end, where thoughts only mention the tag that opens them
    other = _END.search(text, tag.end())
    return other.end() if other else len(text)


def _from_final_channel(text: str) -> str:
    """What gpt-oss says on its last channel, which is meant for the user; empty where it never came to that."""
    start = text.lstrip()
    if bare := _BARE_CHANNEL.match(start):
        return start[bare.end() :] if bare[0].endswith("assistantfinal") else ""
    first = _FIRST_CHANNEL.match(start)
    if first is None:
        return text
    finals = [one for one in (first, *_NEXT_CHANNEL.finditer(start, first.end())) if one[1].lower() == "final"]
    if not finals:
        return ""
    return _CHANNEL_END.split(start[finals[-1].end() :], maxsplit=1)[0]


def _in_code(before: str) -> bool:
    """Whether what follows this text lies in a fenced block, or between backticks of one line."""
    return before.count("```") % 2 == 1 or before.rpartition("\n")[2].count("`") % 2 == 1
