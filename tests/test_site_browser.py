"""The built site in Debian's Chromium: `make docs` first."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT
from tests.reporting.pages import fits

SITE = ROOT / "build" / "site"
PAGES = [
    "index",
    "start",
    "gate",
    "stores",
    "results",
    "cli",
    "settings",
    "api/optimizers",
    "notebooks/03-reading-a-report",
]
pytestmark = pytest.mark.slow


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def address():
    if not (SITE / "index.html").is_file():
        pytest.skip("needs the built site (make docs)")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(params=[(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")], ids=str)
def page(request, browser, address):
    """A page that asks no other host for anything."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    asked = []
    one = context.new_page()
    one.on("request", lambda found: asked.append(found.url))
    yield one
    context.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def test_pages_fit_and_are_accessible(page, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for name in PAGES:
        page.goto(f"{address}{name}.html")
        assert fits(page), name
        found = axe.run(page)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"


@pytest.mark.parametrize("word", ["gate", "rationale", "pgvector"])
def test_search_finds_words(page, address, word):
    page.goto(f"{address}index.html")
    page.keyboard.press("/")
    page.locator("input:focus").wait_for()  # what is typed before is lost
    page.keyboard.type(word)
    page.get_by_role("option").filter(has_text=word).first.wait_for(timeout=10_000)
