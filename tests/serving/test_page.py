"""The served page in Debian's Chromium: what it shows, sends and says, on a phone and on a desk, light and dark."""

import json

import pytest

from tests.reporting.pages import EVIL, fits, violations

pytestmark = pytest.mark.slow
QUESTION = "Why did the dough not rise?"


@pytest.fixture(params=[(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")], ids=str)
def page(request, browser, server, feedback_file):
    """The page, which asks nobody but its server and says nothing on the console."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda one: asked.append(one.url))
    feedback_file.unlink(missing_ok=True)
    page.goto(server.url)
    yield page
    context.close()
    assert [one for one in said if not one.startswith("Failed to load resource")] == []
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []


def ask(page, question=QUESTION):
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_label("Question", exact=True).press("Enter")
    page.get_by_role("status").filter(has_text="Done.").wait_for()


def test_both_orders_and_their_answers(page, server, tmp_path):
    assert violations(page) == []
    ask(page)
    assert fits(page)
    assert page.locator("#answer-cards .answer").all_inner_texts() == ["warm milk"] * 3
    columns = page.locator("#order-lists .card")
    assert columns.locator("h3").all_inner_texts() == ["First stage", "Base reranker", "Aligned reranker"]
    expected = server.service.loaded.program.retriever(QUESTION, k=10).passages
    aligned = server.service.loaded.rerank(QUESTION, expected).passages
    for column, passages in ((columns.nth(0), expected), (columns.nth(2), aligned)):
        ids = [one.get_attribute("data-id") for one in column.locator("li").all()]
        assert ids == [one.id for one in passages]
    first = columns.nth(2).locator("li").first
    assert "Base reranker" not in first.locator(".where").inner_text()
    assert "base reranker" in first.locator(".where").inner_text()
    assert violations(page) == []
    page.screenshot(path=tmp_path / "page.png", full_page=True)


def test_feedback_by_keyboard(page, feedback_file):
    ask(page)
    yes = page.locator("#order-lists .aligned").get_by_role("button", name="answers it").first
    yes.focus()
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="Feedback kept.").wait_for()
    assert yes.get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="right").first.click()
    page.wait_for_function("document.querySelectorAll('[aria-pressed=true]').length === 2")
    page.get_by_role("status").filter(has_text="Feedback kept.").wait_for()
    page.wait_for_timeout(200)
    first, second = map(json.loads, feedback_file.read_text().splitlines())
    assert (len(first["pos"]), second["golden_answers"]) == (1, ["warm milk"])


def test_questions_are_text_and_kept_in_the_browser(page):
    ask(page, EVIL)
    assert page.locator("#recent-list button").all_inner_texts() == [EVIL]
    page.reload()
    page.locator("#recent-list button").click()
    page.get_by_role("status").filter(has_text="Done.").wait_for()
    assert page.get_by_label("Question", exact=True).input_value() == EVIL


def test_a_failure_is_said(page, server, monkeypatch):
    page.route("**/retrieve", lambda route: route.fulfill(status=429, json={"detail": "max_waiting: come back"}))
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("status").filter(has_text="max_waiting: come back").wait_for()
    assert page.get_by_role("button", name="Ask").is_enabled()
