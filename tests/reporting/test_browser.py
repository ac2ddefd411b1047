"""The page in Debian's Chromium, without a screen and without a network."""

import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import Rerank
from tests.reporting.pages import CONTRAST, EVIL, comparison, finished_run, fits
from tests.settings import radio_of

pytestmark = [pytest.mark.slow, pytest.mark.drawn]


@pytest.fixture(params=[(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")], ids=str)
def opened(request, browser):
    """Opens a page and sees that it says nothing on the console and asks for nothing."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    said, asked = [], []

    def open_(folder):
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda one: asked.append(one.url))
        page.goto((folder / "report.html").as_uri())
        return page

    yield open_
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def status(page):
    return page.locator("#status").inner_text()


def test_it_fits_and_is_legible(opened, tmp_path):
    page = opened(finished_run(tmp_path))
    assert fits(page)
    assert page.locator("figure svg").count() == 4
    assert page.get_by_role("img", name="Before and after").count() == 1
    assert page.get_by_role("heading", level=1).inner_text().startswith("Returned the mixture 0.5")
    for selector in ("h1", ".kind", ".note", ".tiles .good", ".tiles .bad", "td small", "figure svg text", "#status"):
        for one in page.locator(selector).all()[:3]:
            assert one.evaluate(CONTRAST) >= 4.5, selector


def test_filters_and_search_find_questions(opened, tmp_path):
    page = opened(finished_run(tmp_path, comparison(120)))
    assert status(page) == "120 of 120 questions"
    assert page.locator("details.q").count() == 50
    page.get_by_role("button", name="Show more").click()
    page.get_by_role("button", name="Show more").click()
    assert page.locator("details.q").count() == 120
    assert not page.get_by_role("button", name="Show more").is_visible()
    for effect in ("helped", "hurt", "unchanged"):
        page.get_by_role("radio", name=f"{effect} (40)", exact=True).check()
        assert status(page) == "40 of 120 questions"
        assert page.locator(f"details.q.{effect}").count() == page.locator("details.q").count() == 40
    page.get_by_role("searchbox").fill("DOUGH 119")
    assert status(page) == "1 of 120 questions"
    assert "dough 119 not rise" in page.locator("details.q").inner_text()
    page.get_by_role("radio", name="helped (40)", exact=True).check()
    assert status(page) == "0 of 120 questions"
    page.get_by_role("searchbox").fill("")
    page.get_by_role("searchbox").press("Enter")  # a form that reloaded the page would lose the filter
    assert status(page) == "40 of 120 questions"
    assert fits(page)


def test_the_page_of_a_compile(opened, topic, index, small, tmp_path):
    student = RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=10, k=3)
    settings = {
        "epochs": 1,
        "learning_rate": 5e-4,
        "max_length": 32,
        "per_device_train_batch_size": 8,
        "candidates": 10,
    }
    optimizer = radio_of(run_dir=tmp_path, **settings)
    optimizer.compile(student, trainset=topic.train, valset=topic.test)
    page = opened(tmp_path)
    assert page.get_by_role("heading", level=1).inner_text() == optimizer.report.decision
    assert status(page) == "10 of 10 questions"
    for title in ("Before and after", "Changes, question by question", "Training loss"):
        assert page.get_by_role("img", name=title, exact=True).is_visible()
    page.get_by_role("searchbox").fill(topic.test[3].question)
    page.locator("details.q summary").first.click()
    page.locator("details.q .sides").first.wait_for()
    assert topic.test[3].question in page.locator("details.q").first.inner_text()
    assert fits(page)


def test_a_question_opens_by_keyboard_and_shows_both_sides(opened, tmp_path):
    page = opened(finished_run(tmp_path))
    first = page.locator("details.q.helped").first
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    first.locator(".sides").wait_for()
    before, after = first.locator(".sides > div").all()
    assert "p0" in before.locator("li").first.inner_text()
    assert "relevant" in after.locator("li").first.inner_text()
    assert "place 2 before" in after.locator("li").first.inner_text()
    assert "ndcg@10" in first.inner_text()
    assert fits(page)


def test_hostile_texts_are_shown_and_do_nothing(opened, tmp_path):
    page = opened(finished_run(tmp_path, comparison(text=EVIL + "x" * 400, query="{} " + EVIL)))
    for one in page.locator("details.q").all():
        one.locator("summary").click()
        one.locator(".sides").wait_for()
    assert "owned" not in page.title()
    assert page.locator("img, #list script").count() == 0
    assert "</script><script>document.title='owned'</script>" in page.locator("details.q").first.inner_text()
    assert page.evaluate("Object.prototype.x === undefined")
    assert fits(page)
