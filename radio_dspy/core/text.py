"""Split texts of every script into words, and tell whether a text contains an answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex

from radio_dspy.core.passages import Passage

_KEPT_FORMS = 1 << 14  # passages come again for other questions
_NO_WORDS = "  "
_SIZE, _MARKS = 4, 40  # how much longer a text of the same words may be, by its form of letters and by marks
_ARTICLES = frozenset(("a", "an", "the"))
# Marks that belong to a word are replaced by rare letters; all other marks part words.
_APOSTROPHE, _POINT, _PLUS, _SHARP, _MINUS = "\u02bc", "\u01c0", "\u01c2", "\u01c1", "\u01c3"
_QUOTES = re.compile("[\u2018\u2019\u201b\u02bc\u02b9\u00b4\u2032\uff07\u05f3]")
_TRADE_MARKS = re.compile("[\u2122\u2120\u00ae\u00a9\u2460-\u24ff]")  # and numbers in circles: letters in NFKC
# Read as hyphens: joints that are not seen (in other texts a space, or nothing), and Hebrew's mark of initials.
_JOINTS = re.compile("[\u200b\u2010\u2011\u2212]|(?<=[\u0620-\u06d3])\u200c(?=[\u0620-\u06d3])|\u05f4")
_AT_AN_EDGE = re.compile("(?<!\\w)\u200b|\u200b(?!\\w)")  # joins nothing
_BETWEEN_THOUSANDS = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
# Raised digits and fractions behind a digit are no further digits: 10\u2076, 5\u00bd.
_RAISED = re.compile("(?<=[0-9\u2080-\u2089])(?=[\u00b2\u00b3\u00b9\u2070-\u207b\u00bc-\u00be\u2150-\u215e])")
# Beyond these characters there are combining marks, digits of other scripts, and characters that are not seen.
_INTRICATE = re.compile(
    "[^\\0-\xac\xae-\u0130\u0132-\u02ba\u02c0-\u02ff\u1e00-\u1eff\u2000-\u200a\u2010-\u2027\u202f-\u205f\u2070-\u2bff]"
)
# Invisible characters, and marks that are written or left out: vowel points and the stretching line of Arabic and
# Hebrew, Cyrillic stress, Armenian marks above a word's last vowel, the okina.
_LEFT_OUT = regex.compile(
    r"[\p{Cf}\p{Variation_Selector}\u034f\u0640\u064b-\u065f\u0670\u0591-\u05bd\u05bf\u05c1-\u05c7\u055b\u055c\u055e\u02bb-\u02bf]"
    r"|(?<=\p{Cyrillic})[\u0300\u0301]"
)
_GREEK, _GREEK_ACCENT = re.compile("[\u0370-\u03ff\u1f00-\u1fff]"), regex.compile(r"(?<=\p{Greek}\p{M}*)\p{M}")
_ALIKE = str.maketrans(  # letters that are written in two ways
    dict(zip("أإآٱىیک\u0131ё\u066b\u066c", "ااااييكiе.,", strict=True))
    | dict(zip("ൺൻർൽൾൿৎ", ("ണ്", "ന്", "ര്", "ല്", "ള്", "ക്", "ত্"), strict=True))
)
_TONE_LAST = re.compile("([\u0e4d\u0ecd])([\u0e48-\u0e4b\u0ec8-\u0ecb])")  # Thai and Lao, in the order of keys
_FOREIGN_DIGIT = regex.compile(r"(?V1)[\p{Nd}--[0-9]]")
_NUMBER = re.compile(r"[0-9]+(?:[.,'][0-9]+)+")
_PARTED = re.compile(r"[0-9]{1,3}(?:'[0-9]{3})+(?:[.,][0-9]+)?")  # 1'000'000
_GROUPED = re.compile(r"([0-9]{1,3}(?:,[0-9]{2})*(?:,[0-9]{3})+)(\.[0-9]+)?|([0-9]{1,3}(?:\.[0-9]{3}){2,})(,[0-9]+)?")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+|,[0-9]{1,2})")
_MEASURED = re.compile(  # 5km
    rf"([0-9](?<![a-zа-я0-9_{_POINT}].)[0-9{_POINT}]*)([kcmnμ]m[23]?|m[23]|[km]g|[kmgt]b|ml|[kmg]?hz|[kmg]w|kwh|[mμ]s|min|hrs?|ft|lbs?"
    r"|oz|mph|kph|bn|mn|[ap]m|ha|[cd]l|mi|yd|[km]?cal|[kmg]?pa|[kmg]?j|[km]v|db|pp[mb]|rpm|fps|px|usd|eur|[ксм]м|кг)(?![a-zа-я0-9])"
)
# Units of one letter, while their case is seen: 634m, 24h, 230V, and no 3M, 5G, 1990s.
_LETTERED = re.compile(r"(?<![\w.,'])([0-9][0-9.,]*)(?=[mltvwhVWLмлтч](?!\w)|(?<=[0-9.,][0-9])[gг](?!\w))")
# A minus, and no hyphen, dash or bullet.
_NEGATIVE = re.compile("(?<![\\w)\\]}\"'\u2019.%\u00b0$\u20ac\u00a3\\n-])(?<![0-9] )-(?=[0-9])")
# Signs that make of the same words another text: currencies, relations, the second of 5% and 2+2, F# and Notepad++.
_SIGN = regex.compile(
    r"(?V1)[\p{Sc}[\p{Sm}--[+=|~<>\u2044]]%‰°]|(?<=[\p{L}\p{N}])(?:\+\+|[+#])(?!\p{L})|(?<=\p{N}\s?)[*=](?=\s?\p{N})|[<>](?=\s?\p{N})"
)
_BETWEEN_INITIALS = re.compile(r"\.(?<=\b[^\W\d_]\.)(?=[^\W\d_]\b)")  # U.S.
_INITIALS_APART = re.compile(r"(?<=\b[^\W\d_]\.) (?=[^\W\d_]\.)")  # J. K.
_SIGNED = re.compile(r"\b([^\W\d_])(\+\+|#|\+(?!\w))")  # C++, C#, A+
_APOSTROPHED = re.compile(r"'(\w+)")
_WORD_BEFORE = re.compile(r"\w{1,8}\Z")
# Behind an apostrophe: English endings and Turkish cases. Before one: French, Italian and Catalan articles.
_ENDING = re.compile(
    r"s|re|ve|ll|d|m|[dt][ae]n?|[yn]?[aeiuü]|n?[iuü]n|nd[ae]n?|y?l[ae]|l[iuü]|l[ae]r\w*|s[iuü]|[dt][ae]ki|[iuü]?nc[iuü]"
)
_ELIDED = re.compile(
    r"[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu|un|gl|[dns]?ell|all|dall|sull|coll|quell|quest|bell|sant|tutt"
)
_INDEX = re.compile(r"[_^]\{(\w+)\}")  # O_{2}
_INNER_MARK = re.compile(r"[!-/:;?@[\]^_`~](?<=[^\W_].)(?=[^\W_])(?!(?<=[0-9].)[0-9])")
_THOUSAND = re.compile(
    rf"\b([1-9][0-9]{{0,2}}){_POINT}([0-9]{{3}})(?![0-9])"
)  # 8.848 is 8848 where a comma parts decimals
_PLAIN_WORD = re.compile(r"[^\W_]+")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Javanese}\p{Balinese}"
    r"\p{Tai_Tham}\p{New_Tai_Lue}\p{Tai_Viet}\p{Cham}\p{Yi}\p{Tangut}\p{Nushu}--[\p{M}\p{N}\p{P}\p{S}]\u3007]"
)
# A syllable with what must not be parted from it: marks, the vowels that Thai and Lao write before or after a
# consonant, a stacked consonant of Khmer and Burmese, a Burmese final consonant, small kana. A run of
# Hangul or katakana is a word.
_OPEN = (
    rf"(?V1)[\u0e40-\u0e44\u0ec0-\u0ec4]?{_UNSPACED}(?:[\u17d2\u1039\u1a60]{_UNSPACED}"
    r"|[\u1000-\u102a\u103f](?=\u1037?\u103a|\u1039)|[\p{M}\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3]"
    r"|[ぁぃぅぇぉゃゅょゎー])*+"
)
# The last consonant of a syllable in Thai and Lao, which is written like the first one of the next: behind a vowel that
# may have one, and where it does not itself begin a syllable, by a vowel, the vowel letter O, or another consonant.
_VOWEL, _BARE = "[ะ-\u0e3aๅ\u0e47-\u0e4e]", "[ก-ฮ](?![ะ-\u0e3aๅ\u0e47-\u0e4e])"
_CODA = (
    "(?:(?<=เ[ก-ฮ]\u0e35[\u0e48-\u0e4b]?)ย|(?<=(?:[\u0e31\u0e34-\u0e39\u0e47]|(?<!\u0e4d|เ[ก-ฮ][\u0e48-\u0e4b]?)า)[\u0e48-\u0e4b]?|[เแโ][ก-ฮ][\u0e48-\u0e4b]?)"
    f"[ก-จชญ-ปพ-ฤลวศ-สฬ](?!{_VOWEL}|อ(?!{_VOWEL}|อ|ย{_VOWEL})|(?<=[กขคตทปพผสศจซ])[รลว]{_VOWEL}|(?!อ){_BARE}(?!{_BARE}|[รลว]{_VOWEL}))"
    "|(?<=(?:[\u0eb1\u0eb4-\u0eb9\u0ebb]|(?<!\u0ecd)າ)[\u0ec8-\u0ecb]?|[ເແໂ][ກ-ຮ][\u0ec8-\u0ecb]?)"
    "[ກງດບນມຍວ](?![ະ-\u0ebd\u0ec8-\u0ecdອວ]))"
)
_SYLLABLE = regex.compile(rf"{_OPEN}{_CODA}?|\p{{Hangul}}+|[\p{{Katakana}}ー]+")
_SHOWN_WORD = regex.compile(rf"{_OPEN}{_CODA}?[\p{{P}}\p{{S}}]*|(?:(?!{_UNSPACED})\S)+|\S")
_LAST_CODA = re.compile("(?<=[\u0e31-\u0e4e\u0eb1-\u0ecd])([ก-ฮກ-ຮ])\\Z|(?<=[เแโເແໂ][ก-ฮກ-ຮ])([ก-ฮກ-ຮ])\\Z")
# Where a number or a Latin word meets a script that is neither Greek nor Cyrillic: 1948\u0bb2\u0bcd.
_ALIEN, _LATIN = "[\u0530-\u1cff\ua000-\ua63f\ua840-\uabff]", "[0-9a-z\xdf-\u024f]"
_HAS_ALIEN, _JUNCTION = re.compile(_ALIEN), re.compile(f"(?<={_LATIN})(?={_ALIEN})|(?<={_ALIEN})(?={_LATIN})")
_SYMBOL = regex.compile(r"\p{S}")
# Yes, no, maybe, true and false; not where they are other words in English or chemistry.
_CLOSED_ANSWERS = """
yes no maybe true false noanswer unanswerable oui non peut-être vrai faux ja nein vielleicht wahr falsch nee nej nei ei
kyllä sí quizás verdadero falso sì vero não talvez verdadeiro tak nie prawda fałsz ano igen nem ya tidak có không đúng
да нет ні так не ναι όχι evet hayır belki doğru yanlış כן לא نعم لا بله بلی خیر نہیں हाँ हां नहीं হ্যাঁ না
ใช่ ไม่ใช่ ไม่ 是的 不是 不对 没有 正确 错误 はい いいえ 아니요 아니오 አዎ አይ
"""
# What is written together with a word and is a word of its own.
_HANGUL, _TIBETAN = re.compile("[\uac00-\ud7a3]"), re.compile("[\u0f40-\u0fbc]")
_KOREAN_PARTICLES = tuple(  # behind a vowel, behind a consonant
    "(?:들)?(?:(?:께서|에게서?|에서?|한테서?|까지|부터|마저|조차|밖에|처럼|보다|만큼|마다|하고|뿐|으?로(?:서|써|부터)?|이?라[고는며도]|이?란|이?랑"
    f"|인|이[자며고다]|(?:이었|였)(?:다|던|으며|고)|입니다|{joint})(?:은|는|의|도|만)?|{lone}|의|도|만)?"
    for joint, lone in (("와", "는|가|를"), ("과|이나", "은|이|을"))
)
_TIBETAN_PARTICLES = "(?:འིས|འི|འང|འམ|འོ|ར|ས)?"
# What may stand before a word, by script; of a word of three letters only what seldom begins a word itself.
_BEFORE = (
    (re.compile("ال[\u0621-\u064a]{3}"), "(?:[وف]?(?:[بكل]?ال|لل))"),
    (re.compile("[\u0621-\u064a][\u0621-\u064a ]{2}"), "(?:[وف]?(?:[بك]?ال|لل)|و?[بل]?)"),
    (re.compile("[\u05d0-\u05ea][\u05d0-\u05ea ]{3}"), "(?:ו?(?:כש|לכש|מש|ש)?[בכלמ]?ה?)"),
    (re.compile("[\u05d0-\u05ea]{3}"), "(?:ו?[בל]?ה?)"),
    (re.compile("[\u1200-\u135a][\u1200-\u135a ]{2}"), "(?:የ|በ|ለ|ከ|ስለ|እንደ|ወደ|እስከ)?"),
)
_ETHIOPIC, _ETHIOPIC_PARTICLES = re.compile("[\u1200-\u135a]"), "(?:ንም|[ንምና])?"


def words(text: str) -> list[str]:
    """The words of a text as they are compared: without case, marks around them, and English articles.

    Scripts that write no spaces give their syllables.

    Example:
        >>> words("The U.S. paid $1,000,000 for Beyonc\u00e9's 20th-century house.")
        ['us', 'paid', '1000000', 'for', 'beyonc\u00e9', '\u02bcs', '20th', 'century', 'house']
        >>> words("\u751f\u4e8e1996\u5e74")
        ['\u751f', '\u4e8e', '1996', '\u5e74']
    """
    return [one for one in _split(_marked(_lettered(text))) if one not in _ARTICLES]


def folded(text: str) -> str:
    """A text without differences that readers do not see: case, composition, width, script of digits, vowel points."""
    if text.isascii():
        return text.lower()
    text = _JOINTS.sub("-", _AT_AN_EDGE.sub(" ", _TRADE_MARKS.sub(" ", _QUOTES.sub("'", text))))
    text = _RAISED.sub("^", _BETWEEN_THOUSANDS.sub("'", text))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = text.replace("\u0153", "oe").replace("\xe6", "ae")
    if not _INTRICATE.search(text):
        return text
    if _GREEK.search(text):  # capitals have no accents
        text = unicodedata.normalize("NFC", _GREEK_ACCENT.sub("", unicodedata.normalize("NFD", text)))
    text = _LEFT_OUT.sub("", text).replace("i\u0307", "i").replace("เเ", "แ").replace("ເເ", "ແ")
    text = _TONE_LAST.sub(r"\2\1", text).translate(_ALIKE)
    return _FOREIGN_DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text)


def _lettered(text: str) -> str:
    """A text in which units of one letter stand apart from their numbers, folded."""
    return folded(_LETTERED.sub(r"\1 ", text))


def _marked(text: str) -> str:
    """A folded text in which marks that belong to numbers and abbreviations no longer part words."""
    if "{" in text:
        text = _INDEX.sub(r"\1", text)
    text = _MEASURED.sub(r"\1 \2", _BETWEEN_INITIALS.sub("", _NUMBER.sub(_number, text)))
    if "-" in text:
        text = _NEGATIVE.sub(_MINUS, text)
    if "+" in text or "#" in text:
        text = _SIGNED.sub(lambda found: found[1] + found[2].replace("+", _PLUS).replace("#", _SHARP) + " ", text)
    return text


def _joined(marked: str) -> str:
    """A marked text without the marks inside words, and inside numbers where they may part thousands."""
    marked = _INNER_MARK.sub("", marked)
    return _THOUSAND.sub(r"\1\2", marked) if _POINT in marked else marked


def _number(found: re.Match[str]) -> str:
    text = found[0].replace("'", "") if _PARTED.fullmatch(found[0]) else found[0]
    if grouped := _GROUPED.fullmatch(text):
        whole, point, dotted, comma = grouped.groups(default="")
        return (whole.replace(",", "") + point + dotted.replace(".", "") + comma.replace(",", ".")).replace(".", _POINT)
    if _DECIMAL.fullmatch(text):
        return text.replace(",", ".").replace(".", _POINT)
    return re.sub("[.,']", " ", text)  # a date, a list


def _apostrophe(found: re.Match[str]) -> str:
    """An apostrophe is part of a word (O'Neill), or stands before an ending (Ann's) or behind an article (l'homme)."""
    before = _WORD_BEFORE.search(found.string, max(0, found.start() - 8), found.start())
    if before is None:
        return f" {found[1]}"
    if _ENDING.fullmatch(found[1]) and (len(before[0]) > 1 or before[0].isdigit() or found[1] in "sdm"):
        return f" {_APOSTROPHE}{found[1]}"
    return f"{_APOSTROPHE}{' ' if _ELIDED.fullmatch(before[0]) else ''}{found[1]}"


def _split(text: str) -> list[str]:
    if "'" in text:
        text = _APOSTROPHED.sub(_apostrophe, text)
    if text.isascii() or not _INTRICATE.search(text):
        return _PLAIN_WORD.findall(text)
    if _HAS_ALIEN.search(text):
        text = _JUNCTION.sub(" ", text)
    return _WORD.findall(_SYLLABLE.sub(r" \g<0> ", text))


@lru_cache(_KEPT_FORMS)
def _form(text: str, articles: bool = False) -> str:
    """All words between spaces; words that marks join stand once more at the end as one word ("e-mail": "email")."""
    marked = _marked(_lettered(text))
    readings = [_split(marked)]
    if (joined := _joined(marked)) != marked:
        readings.append(_split(joined))
    if not articles:
        readings = [[one for one in reading if one not in _ARTICLES] for reading in readings]
    return " \n ".join(f" {' '.join(reading)} " for reading in readings)


def contains(text: str, answer: str) -> bool:
    """Whether the words of an answer follow each other in a text, as whole words (Chinese, Thai...: as syllables).

    Endings behind an apostrophe, particles of Korean and Tibetan, and prepositions and articles that Arabic and Hebrew
    write together with a word are no part of it. An answer of symbols alone, such as an emoji, may stand anywhere.

    Example:
        >>> contains("Ann's C++ (1996\u20132000)", "1996"), contains("party", "art"), contains("costs 5.50", "5")
        (True, False, False)
    """
    if wanted := _answer_forms(answer):
        return any(_stands_in(_form(text, articles), one) for one, articles in wanted)
    symbols = folded(answer).strip()
    return bool(_SYMBOL.search(symbols)) and symbols in folded(text)


@lru_cache(_KEPT_FORMS)
def _answer_forms(answer: str) -> tuple[tuple[str, bool], ...]:
    """The forms in which an answer may stand in a text, and whether the text is read with its articles."""
    text = _lettered(answer)
    marked = _marked(text)
    together, apart = _INITIALS_APART.sub("", text), _BETWEEN_INITIALS.sub(". ", text)
    found: list[tuple[str, bool]] = []
    for reading in (marked, _marked(folded(answer)), _marked(together), _marked(apart), _joined(marked)):
        said = _split(reading)
        while said and said[0] in _ARTICLES:
            said = said[1:]
        articles = bool(said) and said[-1] in _ARTICLES  # vitamin A
        kept = said if articles else [one for one in said if one not in _ARTICLES]
        if kept:
            found.append((" ".join(kept), articles))
            if (apart := _LAST_CODA.sub(r" \1\2", found[-1][0])) != found[-1][0]:  # where a next word seems to begin
                found.append((apart, articles))
    return tuple(dict.fromkeys(found))


def _stands_in(form: str, wanted: str) -> bool:
    if f" {wanted} " in form:
        return True
    after = ""
    if _HANGUL.match(wanted[-1]):
        after = _KOREAN_PARTICLES[(ord(wanted[-1]) - ord("가")) % 28 != 0]  # each 28th syllable ends in a vowel
    elif _TIBETAN.match(wanted[-1]):
        after = _TIBETAN_PARTICLES
    elif _ETHIOPIC.match(wanted[-1]) and len(wanted) > 2:
        after = _ETHIOPIC_PARTICLES
    before = next((prefixes for word, prefixes in _BEFORE if word.match(wanted)), "")
    stem = wanted[2:] if before == _BEFORE[0][1] else wanted  # the article may be part of the prefix
    if not (after or before) or stem not in form:
        return False
    return re.search(f" {before}{re.escape(stem)}{after} ", form) is not None


def first_words(text: str, count: int) -> str:
    """The first words of a text as it stands; in scripts that write no spaces, its first syllables.

    Example:
        >>> first_words("Ice floats on water.", 2), first_words("冰浮在水上。", 2)
        ('Ice floats', '冰浮')
    """
    for number, found in enumerate(_SHOWN_WORD.finditer(text), start=1):
        if number == count and text[found.end() :].strip():
            return " ".join(text[: found.end()].split())
    return text


def unspaced(word: str) -> bool:
    """Whether a word, as ``words`` gives it, is a syllable of a script that writes no spaces."""
    return not word.isascii() and _SYLLABLE.match(word) is not None and not _HANGUL.match(word)


def same_words(one: str, other: str) -> bool:
    """Whether two texts have the same words in the same order, and the same signs that are read, such as $ and %.

    Example:
        >>> same_words("Why is it cold?", "why is it COLD"), same_words("Why is it 5%?", "Why is it 5?")
        (True, False)
    """
    if one == other or not len(one) <= _SIZE * len(other) + _MARKS or not len(other) <= _SIZE * len(one) + _MARKS:
        return one == other
    return _form(one) == _form(other) != _NO_WORDS and _SIGN.findall(folded(one)) == _SIGN.findall(folded(other))


def telling(answers: Sequence[str], shortest: int = 2) -> list[str]:
    """The answers whose presence in a text says something: not yes or no, or shorter than so many letters.

    Example:
        >>> telling(["no", "C", "evaporation"])
        ['evaporation']
    """
    said = {one: "".join(words(one)) for one in answers}
    return [one for one in answers if len(said[one]) >= shortest and said[one] not in _closed_answers()]


@lru_cache(1)
def _closed_answers() -> frozenset[str]:
    return frozenset("".join(words(one)) for one in _CLOSED_ANSWERS.split())


def contains_answer(passage: Passage | str, answers: Sequence[str]) -> bool:
    """Whether an answer stands in the passage as whole words; see ``radio_dspy.core.text.contains``.

    Example:
        >>> contains_answer("The jug cools by evaporation.", ["Evaporation"]), contains_answer("A jug.", ["jugs"])
        (True, False)
    """
    text = passage.contents if isinstance(passage, Passage) else passage
    return any(contains(text, answer) for answer in answers)
