"""The paper's document in a real browser: on a phone, on a desk, and on paper.

Without a Chromium on this machine these tests fail, and `make test` leaves them out and says so.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bearray.paper.document.write import write_document
from tests.paper.storage import write_paper
from tests.report.browser import Tab, opened, wide

pytestmark = pytest.mark.browser

PAPER = 703
"""Width of A4 between the document's margins, in CSS pixels."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_document(write_paper(tmp_path_factory.mktemp("paper") / "storage")).parent


@pytest.fixture(scope="module")
def tab(folder: Path) -> Iterator[Tab]:
    """The document, opened once."""
    with opened(folder / "index.html") as found:
        yield found


def show(tab: Tab, width: int, *, media: str = "", dark: bool = False) -> None:
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    tab.send("Emulation.setEmulatedMedia", media=media, features=[theme])


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1200, False)])
def test_nothing_overflows_even_with_all_details_open(tab: Tab, width: int, dark: bool) -> None:
    show(tab, width, dark=dark)
    for opening in ("removeAttribute('open')", "setAttribute('open', '')"):
        tab.evaluate(f"document.querySelectorAll('details').forEach(d => d.{opening})")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, wide(tab, width)
        assert wide(tab, width) == []


def test_nothing_is_fetched_and_nothing_runs(tab: Tab) -> None:
    asked = [event["request"]["url"] for event in tab.of("Network.requestWillBeSent")]
    assert [url.partition("://")[0] for url in asked] == ["file"], asked
    assert not [e for e in tab.of("Log.entryAdded") if e["entry"]["level"] == "error"]
    assert tab.evaluate("document.querySelectorAll('script, link, img, iframe, object').length") == 0


@pytest.mark.parametrize("width", [400, 1200])
def test_every_figure_is_drawn_and_told(tab: Tab, width: int) -> None:
    show(tab, width)
    sizes = tab.evaluate(
        """[...document.querySelectorAll('.plot svg')].map(s => {
            const box = s.getBoundingClientRect();
            return [box.width, box.height, s.querySelectorAll('path').length];
        })"""
    )
    assert len(sizes) == 2 + 1 + 1 + 2 + 2 + 1  # panels of figures 3, 4, 5, 6, 8 and 9
    for across, high, paths in sizes:
        assert 200 < across <= width and high > 100 and paths > 20
    texts = tab.evaluate("[...document.querySelectorAll('.panels')].map(p => p.getAttribute('aria-label'))")
    assert all(re.search(r"\d\.\d{2}", text) for text in texts)


def test_text_stands_out_from_the_page_in_both_themes(tab: Tab) -> None:
    """At least 4.5:1 for states, the paper's numbers and verdicts."""
    for dark in (False, True):
        show(tab, 1200, dark=dark)
        found = tab.evaluate(
            """(() => {
                const light = c => {
                    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
                        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const ground = e => {
                    for (; e; e = e.parentElement) {
                        const c = getComputedStyle(e).backgroundColor;
                        if (!/, 0\\)$/.test(c)) return c;
                    }
                    return 'rgb(255, 255, 255)';
                };
                return [...document.querySelectorAll('.state, .paper, .ci, .chip, .told')].map(e => {
                    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
                    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                });
            })()"""
        )
        assert len(found) > 100 and min(found) >= 4.5


def test_in_print_no_table_is_cut_and_details_are_open(tab: Tab) -> None:
    show(tab, PAPER, media="print")
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.removeAttribute('open'))")
    cut = tab.evaluate(
        f"""[...document.querySelectorAll('table')].filter(t => {{
            const box = t.getBoundingClientRect();
            return box.right > {PAPER} + 1 || box.width == 0;
        }}).map(t => t.outerHTML.slice(0, 200))"""
    )
    assert cut == []
    heights = tab.evaluate(
        "[...document.querySelectorAll('details table')].map(t => t.getBoundingClientRect().height)"
    )
    assert len(heights) > 10 and min(heights) > 10
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    printed = base64.b64decode(tab.send("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pages(printed) > 5


def test_the_pdf_is_written_with_the_page(folder: Path) -> None:
    printed = (folder / "paper.pdf").read_bytes()
    assert printed.startswith(b"%PDF-") and pages(printed) > 5


def pages(printed: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", printed))
