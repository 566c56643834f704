"""The report in a real browser: names that others wrote stay text, nothing is fetched, it fits a phone.

Without a Chromium on this machine the tests of marker `browser` fail, and say how to get one; `make test`
leaves them out there and says so.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest

from bearray.report import write_report
from bearray.report.collect import read_run
from bearray.report.versus import compare_runs
from bearray.report.versus_text import write_versus
from tests.report.browser import opened, wide
from tests.report.storage import write_run, write_run_on
from tests.report.test_pruning import summary, write_pruning

RUN = "window.ranScript = true"
HOSTILE = (
    f"<script>{RUN}</script>",
    f"</title></style></textarea><img src=x onerror='{RUN}'>",
    f"\" onmouseover='{RUN}' autofocus onfocus='{RUN}' x=\"",
    f"javascript:{RUN}",
    f"<svg><script>{RUN}</script><a xlink:href='javascript:{RUN}'>x</a></svg>",
    "<iframe src='https://example.org/'></iframe><link rel=stylesheet href='https://example.org/x.css'>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "=HYPERLINK(\"https://example.org\";\"x\")",
    "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "|=1",
    "\\input{/etc/passwd}\\write18{id}", "$\\frac{1}{2}$ %_#&~^{}", "[l](javascript:1) `x` *y* | z",
    "\u202eabc\u0000\u0007", "W" * 300, "%s%n{0}%(x)s ${x} #{x}",
)  # fmt: skip
"""Markup, addresses, templates, formulas, LaTeX, Markdown, control characters, and one word that is long."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every name that a stranger can choose is one of `HOSTILE`: methods, data sets, base models, settings,
    errors, versions, departures, statistics, hashes."""
    storage = tmp_path_factory.mktemp("browser") / "<img src=x onerror=alert(1)>"
    names = [name.replace("\0", "\u0001") for name in HOSTILE]
    for i, (name, other) in enumerate(zip(names[::2], names[1::2], strict=True)):
        run = write_run(
            storage / "runs" / f"r{i:02d}",
            method=f"{name} m",
            dataset=names[2 * (i % 2)],
            base_model=names[1],
            kind=other,
            seed=i,
            n=20,
            users_count=10,
            epochs=1,
            role="trial" if i % 4 == 3 else "method",
            chosen=i % 8 == 3,
            changes={"objective.lam": 0.5 + i},
            versions={name: other, "torch": other},
            data_hash=other,
            full=False,
        )
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(config | {"git": name, "created": other}))
        if i % 5 == 4:
            result = json.loads((run / "result.json").read_text())
            (run / "result.json").write_text(json.dumps(result | {"status": "failed", "error": other}))
        elif i == 0:
            write_pruning(run, summary(8))
    about = {"sweep": {name: name for name in names}, "data_stats": {name: [name] for name in names}}
    (storage / "sweep.json").write_text(json.dumps({**about, "departures": names}))
    return storage


@pytest.fixture(scope="module")
def report(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(storage, tmp_path_factory.mktemp("report") / "out").parent


@pytest.fixture(scope="module")
def comparison(demo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bearray compare` on runs and titles that are called so, too."""
    folder = tmp_path_factory.mktemp("comparison")
    data = folder / "demo"
    shutil.copytree(demo_dir, data)
    items = pd.read_parquet(data / "items.parquet")
    items["title"] = [f"{HOSTILE[i % len(HOSTILE)]} {i}" for i in range(len(items))]
    items.to_parquet(data / "items.parquet")
    for i, method in enumerate(HOSTILE[:2]):
        write_run_on(folder / str(i), data, method=method, dataset=HOSTILE[2], hit=0.1 + 0.8 * i, seed=i)
    versus = compare_runs([read_run(folder / str(i), str(i)) for i in range(2)])
    assert versus.examples[HOSTILE[1]]
    return write_versus(versus, folder / "out").parent


@pytest.mark.browser
@pytest.mark.parametrize("page", ["report", "comparison"])
@pytest.mark.parametrize(("width", "dark"), [(400, False), (1200, True)])
def test_hostile_names_are_inert_and_everything_fits(
    page: str, request: pytest.FixtureRequest, width: int, dark: bool
) -> None:
    with opened(request.getfixturevalue(page) / "index.html", width=width, dark=dark) as tab:
        # touch whatever could be waiting for it
        tab.evaluate(
            """[...document.querySelectorAll('*')].forEach(e => {
                for (const kind of ['mouseover', 'focus', 'click', 'error', 'load', 'toggle'])
                    if (e.tagName != 'A') e.dispatchEvent(new Event(kind));
            })"""
        )
        tab.evaluate("new Promise(done => setTimeout(done, 100))")
        assert tab.evaluate("window.ranScript") is None, "a script ran"
        assert not tab.of("Page.javascriptDialogOpening")
        assert not [e for e in tab.of("Log.entryAdded") if e["entry"]["level"] == "error"]
        asked = [event["request"]["url"] for event in tab.of("Network.requestWillBeSent")]
        assert [url.partition("://")[0] for url in asked] == ["file"], asked
        active = "script, iframe, object, embed, link, form, base, meta[http-equiv], img, foreignObject"
        assert tab.evaluate(f"document.querySelectorAll('{active}').length") == 0
        attributes = tab.evaluate(
            "[...document.querySelectorAll('*')]"
            ".flatMap(e => [...e.attributes].map(a => [a.localName, a.value]))"
        )
        assert not [name for name, _ in attributes if name.startswith("on")]
        assert all(value.startswith("#") for name, value in attributes if name in ("href", "src"))
        for name in HOSTILE[:3]:
            assert name.strip() in tab.evaluate("document.body.textContent")
        assert "49" not in tab.evaluate("document.title")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, wide(tab, width)
        assert wide(tab, width) == []


@pytest.mark.browser
def test_a_script_would_be_seen(report: Path, tmp_path: Path) -> None:
    """The test can fail: the same page with one name unescaped."""
    page = tmp_path / "index.html"
    text = (report / "index.html").read_text(encoding="utf-8")
    page.write_text(text.replace("</main>", f"{HOSTILE[0]}<img src='missing.png'></main>"), encoding="utf-8")
    with opened(page) as tab:
        assert tab.evaluate("window.ranScript") is True
        assert len(tab.of("Network.requestWillBeSent")) == 2


@pytest.mark.browser
def test_every_figure_alone_is_inert(report: Path) -> None:
    figures = sorted((report / "figures").glob("*.svg"))
    assert figures
    for figure in figures:
        for element in ET.parse(figure).iter():
            assert element.tag.rpartition("}")[2] not in {"script", "foreignObject", "a", "image"}
            for name, value in element.attrib.items():
                assert not name.startswith("on") and "javascript:" not in value.lower()
                if name.rpartition("}")[2] == "href":
                    assert value.startswith("#")
    with opened(figures[0]) as tab:
        assert tab.evaluate("window.ranScript") is None
        assert [r["request"]["url"].partition("://")[0] for r in tab.of("Network.requestWillBeSent")] == [
            "file"
        ]


def test_spreadsheets_run_no_formula(report: Path) -> None:
    tables = sorted((report / "tables").glob("*.csv"))
    assert tables
    cells = 0
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                for cell in row:
                    cells += 1
                    bare = cell.lstrip(" \t\r\n\v\f\u00a0")
                    number = re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", cell)
                    assert number or not bare.startswith(("=", "+", "-", "@")), (table.name, cell)
    assert cells > 100


def test_latex_runs_no_command(report: Path) -> None:
    own = {
        "begin", "end", "centering", "small", "caption", "toprule", "midrule", "bottomrule", "multicolumn",
        "emph", "textbf", "underline", "scriptsize", "dagger", "textbackslash", "textasciitilde",
        "textasciicircum",
        "textless", "textgreater", "textbar", "ldots", "pm", "usepackage",
    }  # fmt: skip
    tables = sorted((report / "tables").glob("*.tex"))
    assert tables
    for table in tables:
        text = table.read_text(encoding="utf-8")
        assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= own
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", text), table.name
