"""Multiple choice: retrieve, rerank, choose a letter."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import dspy
from radio_dspy.programs.parts import answered, check_counts, check_parts

from radio_dspy.core.errors import DataError
from radio_dspy.core.passages import texts_of
from radio_dspy.datasets.options import folded_option
from radio_dspy.lm.predictors import Predict
from radio_dspy.lm.replies import Reply, aread, read
from radio_dspy.lm.signatures import ChooseOption

_LETTERS = string.ascii_uppercase
_LONE = re.compile(r"[(\[]?\s*([a-z])\s*[)\].:,]*", re.IGNORECASE)
# What stands before a letter: "The answer is", "Answer: option"; at the start of a line also a bare "Option".
_STATEMENT = re.compile(
    r"(?<!wrong )(?<!incorrect )\b(?:answer|option|choice|letter)(?:\s+(?:is|would be|must be)\b\s*:?|\s*[:=])\s*"
    r"(?:the\s+)?(?:(?:option|choice|letter)\b\s*:?)?\s*"
    r"|^[^\w\n]*(?:answer|option|choice|letter)\s+"
    r"|(?:答案|选项|選項|(?<!不)[应應故][选選]|(?<![不非别没应應])[选選][择擇]?|答え|正解|解答|정답|답|คำตอบ|\b(?:antwort|antwoord|svar(?:et)?|vastaus|réponse|respuesta"
    r"|resposta|risposta|răspuns(?:ul)?|ответ|відповідь|odpowiedź|odpověď|válasz|απάντηση|cevap|jawaban|đáp án"
    r"|الإجابة(?: الصحيحة)?|الجواب|پاسخ|ה?תשובה|उत्तर))"
    r"(?:\s+(?:correcta|correta|corretta|correcte|corect|exacta|esatta|juste|נכונה|הנכונה)\b)?"
    r"(?:[^\S\n]*(?:是|为|為|は|은|는|คือ)"
    r"|\s+(?:ist|lautet|est|este|es|é|è|er|är|on|je|is|это|είναι|jest|هي|هو|است|היא|है|là|adalah)(?=[\s:]))?"
    r"\s*[:=\u2013\u2014-]?\s*(?:(?:la|el|le|a|o|die|het|η)\s+(?=[(\[]?[A-Z][)\].\s]*$))?"
    r"(?:(?:选项|選項|option|opción|opção|opzione|вариант)\s*)?",
    re.IGNORECASE | re.MULTILINE,
)
_NARROW: dict[int, int | str] = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    ord("。"): ". ",
    ord("、"): ", ",
}
_CYRILLIC = re.compile(r"(?<!\w)[АВСЕ](?!\w)")  # alone they look like the Latin letters that stand before the options
_COPULA = re.compile(r"(?<![A-Za-z0-9])([A-Z][)\]]?)(?:です|だ|입니다|이다|'d[ıi]r\b)")
_ENCLOSED = re.compile(r"\s*[(\[]\s*([a-z])\s*[)\]](?!\w)", re.IGNORECASE)
_BARE = re.compile(r"\s*([a-z])(?![\w'\u2019])", re.IGNORECASE)
# What shows that it is a letter: nothing more on its line, a bracket, a colon, a full stop, or a verdict.
_SURE = re.compile(
    r"\s*(?:$|\n|[)\]:]|\.(?:\s|$))|,?\s*(?:因为|因為)"
    r"|,?\s+(?:because|since|weil|porque|car|perché|is (?:the )?(?:correct|right))\b|\s+(?:है|است)"
)
_FURTHER = re.compile(
    r"[)\].]?\s*(?:,|/|&|and\b|or\b)\s*(?:and\b|or\b)?\s*(?:[A-Z](?!\w)|[(\[][A-Za-z][)\]])"
    r"|[)\].]?[^\S\n]*\n\s*[(\[]?[A-Z][)\].]*\s*(?:\n|$)"
)
_QUOTED = re.compile(r"([\"'`*_]{1,3})(.+)\1")
_LONGEST = 8_000  # characters: of a longer reply the start and the end are read, as a choice stands there
_ARTICLE = re.compile(r"(?:an?|the) ")


class MultipleChoice(dspy.Module):
    """Answers a multiple-choice question with a letter, from retrieved and reranked passages (paper, section 3.5).

    Retrieval and reranking see the question alone, so that an aligned reranker is judged on what it was aligned on; the
    LM sees the options as well. Judged by the accuracy of the letter (paper, section 4.1; ``metrics.accuracy``).

    Args:
        retriever: The first stage: ``retriever(query, k=)`` gives a prediction with ``passages``.
        rerank: The reranker: ``rerank(query, passages, k=)`` gives a prediction with ``passages`` and ``scores``.
        candidates: How many passages are retrieved; the paper's 20.
        k: How many of them the LM reads; the paper's 5.

    Example:
        >>> from dspy.utils import DummyLM
        >>> from radio_dspy import FaissRetriever, NoRerank, Passage
        >>> retriever = FaissRetriever.build([Passage("a", "Yeast dies in heat.")], encoder="all-MiniLM-L6-v2")
        >>> program = MultipleChoice(retriever, NoRerank())
        >>> with dspy.context(lm=DummyLM([{"letter": "The answer is B."}])):
        ...     program(question="What kills yeast?", choices=["cold", "heat", "salt"]).answer
        'B'
    """

    def __init__(self, retriever: dspy.Module, rerank: dspy.Module, *, candidates: int = 20, k: int = 5) -> None:
        super().__init__()
        check_parts(retriever, rerank)
        check_counts(candidates, k)
        self.retriever = retriever
        self.rerank = rerank
        self.choose = Predict(ChooseOption)
        self.candidates = candidates
        self.k = k

    def forward(self, question: str, choices: Sequence[str]) -> dspy.Prediction:
        """Answer one question.

        Args:
            question: The question.
            choices: The texts of 2 to 26 options, without letters.

        Returns:
            A prediction with ``answer`` (a capital letter, or ``""`` where the reply cannot be read), and the
            ``passages`` the LM read with their ``scores``, best first.

        Raises:
            DataError: If there are fewer than 2 or more than 26 choices.
        """
        options = _lettered(choices)
        found = self.retriever(question, k=self.candidates)
        ranked = self.rerank(question, found.passages, k=self.k)
        passages = texts_of(ranked.passages)
        reply = read(self.choose, "letter", passages=passages, question=question, options=options)
        return _chosen(reply, choices, ranked)

    async def aforward(self, question: str, choices: Sequence[str]) -> dspy.Prediction:
        """Answer one question asynchronously; see ``forward``."""
        options = _lettered(choices)
        found = await self.retriever.acall(question, k=self.candidates)
        ranked = await self.rerank.acall(question, found.passages, k=self.k)
        passages = texts_of(ranked.passages)
        reply = await aread(self.choose, "letter", passages=passages, question=question, options=options)
        return _chosen(reply, choices, ranked)


_BOXED = re.compile(r"\\boxed\{\s*(?:\\(?:text|mathrm|textbf|mathbf)\{)?([^{}]{1,2000})\}")


def read_letter(reply: str, choices: Sequence[str]) -> str:
    """The letter that a reply chooses.

    Understood are a letter alone (``b``, ``(B)``), a letter marked as one at the start (``B. heat``, ``B, because``), a
    statement anywhere (``The answer is B``, ``Answer: heat``), and an option's own text where it is the whole reply and
    no other option's (case, white space, a leading article and a final full stop aside). A single letter is always a
    letter, also where it is some option's text.

    Args:
        reply: What the LM wrote.
        choices: The texts of 2 to 26 options.

    Returns:
        A capital letter, or ``""`` where the reply chooses none or several, gives a letter with another option's text,
        or begins with a word of one letter, such as the article of ``A cell divides``.

    Raises:
        DataError: If there are fewer than 2 or more than 26 choices.

    Example:
        >>> choices = ["cold", "heat", "salt"]
        >>> [read_letter(reply, choices) for reply in ("b)", "The answer is B.", "Heat", "A warm room does")]
        ['B', 'B', 'B', '']
    """
    options = dict(zip(_letters_for(choices), choices, strict=True))
    reply = reply if len(reply) <= _LONGEST else f"{reply[: _LONGEST // 2]}\n{reply[-_LONGEST // 2 :]}"
    if boxed := _BOXED.findall(reply):  # the last line of many reasoning LMs
        reply = boxed[-1]
    plain = _CYRILLIC.sub(lambda found: "ABCE"["АВСЕ".index(found[0])], reply.translate(_NARROW))
    text = _COPULA.sub(r"\1", plain).replace("**", "").strip(" \t\r\n*_#\"'`")
    if (lone := _LONE.fullmatch(text)) and lone[1].upper() in options:
        return lone[1].upper()
    if letter := _own_text(reply, options):
        return letter
    said = {_leading(text[match.end() :], options) for match in _STATEMENT.finditer(text)} - {""}
    if said:
        return said.pop() if len(said) == 1 else ""
    return _marked(text, options)


def _leading(text: str, options: dict[str, str]) -> str:
    """The letter, or the option's own text, that stands after a statement such as "The answer is"."""
    return _marked(text, options) or _own_text(text.strip().split("\n")[0], options)


def _marked(text: str, options: dict[str, str]) -> str:
    """The letter that the text begins with, if what follows shows that it is one."""
    match = _ENCLOSED.match(text) or _BARE.match(text)
    if match is None or (letter := match[1].upper()) not in options:
        return ""
    rest = text[match.end() :]
    after = rest.lstrip(" \t)].:,-\u2013").split("\n")[0]
    own = _own_text(after, options)
    if _several(text, rest, letter, options) or own not in ("", letter) or _initial(text, options):
        return ""
    if match.re is _ENCLOSED or _SURE.match(rest) or own:
        return letter
    return letter if re.match(r"[.,]|\s+[-\u2013]\s", rest) and _begins(after, options[letter]) else ""


def _several(text: str, rest: str, letter: str, options: dict[str, str]) -> bool:
    """Whether the text names another letter as well ("A and B"), or repeats the list of options."""
    further = _FURTHER.match(rest)
    named = re.findall(r"[A-Za-z]", further[0])[-1].upper() if further else letter
    return any(
        other == named or re.search(rf"(?<!\w){other}[).\]:]\s*{re.escape(choice)}", text, re.IGNORECASE)
        for other, choice in options.items()
        if other != letter
    )


def _initial(text: str, options: dict[str, str]) -> bool:
    """Whether the letter is a name's initial, as the options write it: "C. elegans"."""
    name = re.match(r"\s*[A-Z]\.\s*\w+", text)
    return name is not None and any(name[0].strip() in choice for choice in options.values())


def _begins(text: str, choice: str) -> bool:
    """Whether the text begins with the option's, as whole words."""
    start = _fold(choice)
    return bool(start) and re.match(rf"{re.escape(start)}(?!\w)", _fold(text)) is not None


def _own_text(text: str, options: dict[str, str]) -> str:
    """The letter of the one option whose text this is."""
    if len(text) > 2 * max(map(len, options.values())) + 40:  # of a long reply each statement is looked at
        return ""
    said = _fold(text)
    found = [letter for letter, choice in options.items() if said and _fold(choice) == said]
    return found[0] if len(found) == 1 else ""


def _fold(text: str) -> str:
    # Not SQuAD's normalisation, which makes "-1" and "1" the same option.
    said = folded_option(text)
    if quoted := _QUOTED.fullmatch(said):
        said = quoted[2].rstrip(".")
    return _ARTICLE.sub("", said, count=1) if _ARTICLE.match(said) else said


def _letters_for(choices: Sequence[str]) -> str:
    if isinstance(choices, str) or not 2 <= len(choices) <= len(_LETTERS):
        got = f"the string {choices!r:.60}" if isinstance(choices, str) else f"{len(choices)}"
        raise DataError(f"A question needs a list of 2 to {len(_LETTERS)} choices, got {got}.")
    return _LETTERS[: len(choices)]


def _lettered(choices: Sequence[str]) -> list[str]:
    return [f"{letter}. {choice}" for letter, choice in zip(_letters_for(choices), choices, strict=True)]


def _chosen(reply: Reply, choices: Sequence[str], ranked: dspy.Prediction) -> dspy.Prediction:
    return answered(reply._replace(value=read_letter(str(reply.value or ""), choices)), ranked)
