"""Questions made from passages: which stay, what they say of themselves, what a run costs and keeps."""

import itertools

import pytest
from dspy.utils import DummyLM

import radio_dspy as radio
from radio_dspy import Passage
from radio_dspy.core.errors import BudgetError, DataError, LanguageModelError, SettingsError
from radio_dspy.questions import filters
from radio_dspy.questions.making import make_questions
from radio_dspy.questions.planning import document_of, sides_of

NAMES = ("copper", "cotton", "cement", "camphor", "cobalt", "cork", "chalk", "coral", "clay", "cocoa", "cumin", "coal")
PLACES = ("Oslo", "Lima", "Cairo", "Quito", "Perth", "Dakar", "Turin", "Delhi", "Kyoto", "Accra", "Minsk", "Porto")
PASSAGES = [
    Passage(f"p{number}", f"The {name} trade began in {place}.", metadata={"source": f"book {number // 3}"})
    for number, (name, place) in enumerate(zip(NAMES, PLACES, strict=True))
]


class Writer(DummyLM):
    """Asks where the trade of a passage's thing began; says that it knows nothing, or what a test gives it to say."""

    def __init__(self, known=(), question="Where did the {} trade begin?", answer=None, alone="unknown"):
        super().__init__([])
        self.prompts, self.known, self.question, self.answer, self.alone = [], known, question, answer, alone

    def __call__(self, *args, messages=None, **kwargs):
        text = messages[-1]["content"]
        names = [one for one in NAMES if one in text]
        place = next((place for name, place in zip(NAMES, PLACES, strict=True) if name in names[:1]), "")
        if "[[ ## kind ## ]]" in text:
            fields = {"question": self.question.format(" and ".join(names)), "answer": self.answer or place}
        elif "[[ ## passages ## ]]" in text:
            fields = {"answer": self.alone}
        else:
            fields = {"answer": place if names and names[0] in self.known else "unknown"}
        self.answers = {"": fields}
        reply = super().__call__(*args, messages=messages, **kwargs)
        self.prompts.append(text)  # a limit lets none through
        return reply


def make(lm, passages=PASSAGES, **settings):
    settings = {"style": "fact", "num_threads": 1, "show_progress": False, **settings}
    return make_questions(passages, lm, **settings)


@pytest.fixture(autouse=True)
def _small_index(small_by_name):
    """The first stage where none is given."""


def test_every_question_says_where_it_comes_from():
    made = make(Writer(), n=5)
    assert len(made) == 5
    for one in made.examples:
        (name,) = (name for name in NAMES if name in one.question)
        number = NAMES.index(name)
        assert (one.answers, one.relevant) == ([PLACES[number]], [f"p{number}"])
        assert one.metadata["documents"] == [f"book {number // 3}"]
        assert (one.metadata["style"], one.metadata["lm"]) == ("fact", "dummy")
    assert made.spending["questions"]["calls"] == made.spending["checks"]["calls"] == 5


def test_train_and_dev_share_no_document():
    made = make(Writer(), style=["fact", "multihop"], n=20, dev=0.5, k=12)
    assert made.train
    assert made.dev
    assert any(one.metadata["style"] == "multihop" for one in made.examples)
    sides = [{document for one in side for document in one.metadata["documents"]} for side in (made.train, made.dev)]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("lm", "settings", "reason"),
    [
        (Writer(known=NAMES), {}, filters.KNOWN),
        (Writer(answer="Atlantis"), {}, filters.NOT_IN_PASSAGE),
        (Writer(answer="yes"), {}, filters.NOT_IN_PASSAGE),
        (Writer(question="Where does the passage say that {} began?"), {}, filters.SELF_REFERENCE),
        (Writer(question="Did {} begin in Oslo?", answer="Oslo"), {}, filters.OWN_ANSWER),
        (Writer(question="{}" + " word" * 100), {}, filters.TOO_LONG),
        (Writer(question="Where was it in the beginning?", answer="trade began"), {"k": 1}, filters.NOT_FOUND),
        (Writer(question="Where was it in the beginning?", answer="trade began"), {"k": 12}, filters.REPEATED),
        (Writer(alone="They say Oslo, Lima, Cairo or Quito."), {"style": "multihop", "k": 12}, filters.ONE_ENOUGH),
    ],
)
def test_what_is_of_no_use_is_left_out_and_counted(lm, settings, reason):
    """Of the first four passages at least the first says what it should not."""
    passages = PASSAGES[:4]
    made = make(lm, passages, dev=0, **settings)
    assert made.counts[reason] >= 3
    assert made.counts["asked"] == 4 == sum(count for name, count in made.counts.items() if name != "asked")
    paid = [one for one in lm.prompts if "[[ ## kind ## ]]" not in one]
    assert bool(paid) == (reason in (filters.KNOWN, filters.REPEATED, filters.ONE_ENOUGH) or len(made) > 0)


def test_the_same_run_pays_for_no_reply_twice(tmp_path):
    first = Writer()
    whole = make(first, n=8, run_dir=tmp_path / "whole")
    for calls in (1, 4, 9):
        folder, spent = tmp_path / f"run{calls}", Writer()
        with pytest.raises(BudgetError, match="goes on from there"):
            make(spent, n=8, run_dir=folder, budget=radio.Budget(max_calls=calls))
        assert len(spent.prompts) == calls
        rest = Writer()
        again = make(rest, n=8, run_dir=folder)
        assert len(rest.prompts) == len(first.prompts) - calls
        assert [one.toDict() for one in again.examples] == [one.toDict() for one in whole.examples]


def test_what_was_made_before_a_limit_is_returned():
    made = make(Writer(), budget=radio.Budget(max_calls=20), n=12, k=12)
    assert len(made) == 8
    assert "max_calls=20 is reached" in made.stopped
    assert "Ended early" in str(made)


def test_passages_that_give_no_more_are_said_so():
    made = make(Writer(), PASSAGES[:3], n=9)
    assert (len(made), made.stopped) == (3, "the passages give no more than 3 questions.")


def test_an_lm_that_gives_nothing_of_use_is_asked_no_further():
    many = [Passage(f"m{number}", f"Thing {number} is made of copper.") for number in range(300)]
    lm = Writer(answer="Atlantis")
    with pytest.raises(LanguageModelError, match=r"first 1\d\d tasks \(\{'answer not in the passage': 1\d\d\}\)"):
        make(lm, many)
    assert len(lm.prompts) < 140


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style": "riddle"}, "style must be one or several of fact, why"),
        ({"style": {}}, "style is empty"),
        ({"n": 0}, "whole numbers of at least 1"),
        ({"dev": 1.0}, "dev must be at least 0 and below 1"),
    ],
)
def test_settings_are_checked_before_anybody_is_asked(settings, message):
    lm = Writer()
    with pytest.raises(SettingsError, match=message):
        make(lm, **settings)
    assert lm.prompts == []
    with pytest.raises(SettingsError, match="Nobody writes the questions"):
        make(None)


def test_what_is_made_is_read_again(tmp_path):
    made = make(Writer(), style={"origin": "about where something comes from"}, dev=0.5)
    made.save(tmp_path / "train.jsonl", tmp_path / "dev.jsonl")
    read = radio.load_questions(tmp_path / "train.jsonl")
    assert [one.toDict() for one in read] == [one.toDict() for one in made.train]
    assert {one.metadata["style"] for one in read} == {"origin"}
    with pytest.raises(SettingsError, match="is there already"):
        made.save(tmp_path / "train.jsonl")


def test_a_document_is_what_its_passages_say():
    assert document_of(Passage("a", "x", title="Ice")) == "Ice"
    assert document_of(Passage("a", "x", title="Ice", metadata={"book": 7}), "book") == "7"
    with pytest.raises(DataError, match="'book' in its metadata"):
        document_of(Passage("a", "x"), "book")


def test_whole_documents_change_sides():
    documents = {f"{document}{number}": document for document in "abcdefgh" for number in range(3)}
    for share, seed in itertools.product((0.1, 0.25, 0.5), (1, 2)):
        sides = sides_of(documents, share, seed)
        assert all(len({sides[f"{one}{number}"] for number in range(3)}) == 1 for one in "abcdefgh")
        assert sum(side == "dev" for side in sides.values()) == share * 24 // 3 * 3


def test_nearly_the_same_is_found_among_many():
    """By the index as by looking at every pair."""
    seen, sets = filters.Distinct(), []
    for numbers in (one for size in (6, 9, 8, 7) for one in itertools.combinations(range(9), size)):
        said = {f"word{'x' * number}" for number in numbers}
        new = not any(len(said & one) >= 0.8 * len(said | one) for one in sets)
        assert seen.add(" ".join(sorted(said))) == new
        sets += [said] if new else []
    assert 84 < len(sets) < 130  # some of them are nearly the same
    assert seen.add("one two three four five six seven eight nine")
    assert not seen.add("one two three four five six seven eight nine ten")
