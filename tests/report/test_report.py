"""The written report: HTML, Markdown, LaTeX, figures, the command."""

import html.parser
import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from bearray.commands.report import report as command
from bearray.errors import MissingFileError, StorageError
from bearray.report import write_report
from bearray.report.formats import to_csv
from bearray.report.latex import tex
from bearray.report.markdown import md
from tests.report.storage import write_run, write_sweep

VOID = {"meta", "link", "br", "hr", "img", "input", "source", "col"}
HOSTILE = "<script>alert(1)</script> & \"q\" 'a' $x^2$ 100%_#{~}\\ |*`[l](u)"


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced and ids unique; collects elements and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append((tag, found))
        if found.get("id"):
            self.ids.append(str(found["id"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text())


def test_page_is_balanced_with_unique_ids_and_working_links(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    ids = set(page.ids)
    for _, attrs in page.elements:
        for name in ("href", "aria-labelledby"):
            value = attrs.get(name)
            if value is not None:
                assert value.removeprefix("#") in ids, (name, value)
        for used in re.findall(r"url\(#([^)]*)\)", " ".join(v or "" for v in attrs.values())):
            assert used in ids


def test_page_stands_alone(report: Path, page: Page) -> None:
    text = (report / "index.html").read_text()
    assert "http:" not in text and "https:" not in text and "//" not in re.sub(r"/\*.*?\*/", "", text)
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in page.elements}
    assert "@import" not in text and "url(" not in text.partition("</style>")[0]


def test_page_is_accessible(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert dict(page.elements[0][1]) == {"lang": "en"}
    assert tags.count("table") == tags.count("caption")
    assert all(a.get("scope") in ("col", "row", "rowgroup") for t, a in page.elements if t == "th")
    charts = [a for t, a in page.elements if a.get("role") == "img"]
    assert len(charts) == 5 and all(len(a["aria-label"] or "") > 40 for a in charts)
    assert tags.count("svg") == 3 + 3 + 3 + 2 + 1
    levels = [int(t[1]) for t in tags if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_page_has_every_part_of_the_answer(page: Page) -> None:
    for text in (
        "BEAR recommends better than MSL here",
        "14 runs: 12 finished, 1 failed, 1 unfinished",
        "worker 0 ran out of memory",
        "there is no result.json; epoch 2 finished",
        "★ chosen",
        "train.epochs: 10 -> 3",
        "windows.train",
        "The published numbers are not comparable with this table",
        "Violations of condition (3.2) over training",
        "Tokens/s",
        "2.13.0",
    ):
        assert text in page.text, text


def test_files_are_all_there(report: Path) -> None:
    names = sorted(p.relative_to(report).as_posix() for p in report.rglob("*") if p.is_file())
    figures = ("cost", "results", "search-1", "training", "violations")
    assert names == sorted(
        [f"figures/1-demo-local-tiny-{f}.{s}" for f in figures for s in ("png", "svg")]
        + [f"tables/{t}.csv" for t in ("overview", "results", "table2", "published", "trials", "runs")]
        + [f"tables/1-demo-local-tiny-{n}.tex" for n in ("overview", "trie", "full")]
        + ["index.html", "report.md"]
    )
    for path in (report / "figures").glob("*.svg"):
        ET.parse(path)
    for path in (report / "figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_same_runs_give_the_same_bytes(sweep: Path, report: Path, tmp_path: Path) -> None:
    again = write_report(sweep, tmp_path / "again").parent
    for path in report.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(report)).read_bytes(), path.name


def test_trials_are_sorted_by_validation_with_the_chosen_one_marked(report: Path) -> None:
    text = (report / "report.md").read_text()
    section = text.partition("## Search")[2].partition("## Dep")[0]
    lines = [x.split(" | ") for x in section.splitlines() if x.startswith("| runs")]
    assert len(lines) == 12
    values = [float(x[3]) for x in lines[:10]]
    assert values == sorted(values, reverse=True)
    assert [x[-1] for x in lines].count("chosen |") == 1
    assert [x[-1].rstrip(" |") for x in lines[10:]] == ["unfinished", "failed"]


def test_markdown_table_marks_best_second_and_tests(report: Path) -> None:
    lines = [x for x in (report / "report.md").read_text().splitlines() if x.startswith("| BEAR |")]
    assert re.fullmatch(
        r"\| BEAR \| (\*\*0\.\d{4}\*\*\\\* \[0\.\d{4}, 0\.\d{4}\] \| ){5}200 \| 80 \|", lines[1]
    )
    assert re.fullmatch(
        r"\| BEAR \| (0\.\d{4}\\\* \| ){4}200\.0 \| 100\.0 \| 90\.9 \|", lines[0]
    )  # at a glance


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("hostile") / "<b>x"
    storage.mkdir()
    write_run(storage / "a", method=HOSTILE, dataset=HOSTILE, base_model=HOSTILE, seed=1, n=40)
    write_run(storage / "b", method="SFT", dataset=HOSTILE, base_model=HOSTILE, seed=2, n=40)
    write_run(
        storage / "c", method="T" + HOSTILE, dataset=HOSTILE, base_model=HOSTILE, role="trial", hit=None
    )
    write_run(
        storage / "d",
        method="MSL",
        dataset=HOSTILE,
        base_model=HOSTILE,
        status="failed",
        error=HOSTILE,
        hit=None,
    )
    departures = [HOSTILE]
    (storage / "sweep.json").write_text(
        json.dumps({"sweep": {HOSTILE: HOSTILE}, "data_stats": {HOSTILE: HOSTILE}, "departures": departures})
    )
    return write_report(storage).parent


def test_hostile_names_are_text_in_the_page(hostile: Path) -> None:
    text = (hostile / "index.html").read_text()
    found = Page(text)
    assert "<script" not in text.lower() and "<b>x" not in text
    assert found.text.count("<script>alert(1)</script>") > 10
    assert not [a for _, a in found.elements for name in a if name.startswith("on")]


def test_hostile_names_are_text_in_latex(hostile: Path) -> None:
    (path,) = (hostile / "tables").glob("*-trie.tex")
    text = path.read_text()
    assert r"\textless{}script\textgreater{}" in text
    body = re.sub(r"\\[&%$#_{}]|\\\\", "", text.partition("\n")[2])
    body = body.replace(r"$n$", "").replace(r"$^*$", "").replace(r"$^\dagger$", "")
    assert not set("$#%~^_") & set(body)
    assert body.count("{") == body.count("}")
    columns = [x.count("&") for x in text.replace(r"\&", "").splitlines() if x.endswith(r"\\") and "&" in x]
    assert set(columns) == {7}


def test_hostile_names_are_text_in_markdown(hostile: Path) -> None:
    lines = (hostile / "report.md").read_text().splitlines()
    rows = [x for x in lines if x.startswith("| ")]
    assert rows and not [x for x in lines if re.search(r"(?<!\\)<(?!/?ins>)", x)]
    results = [x for x in rows if "[0." in x]
    assert {len(re.findall(r"(?<!\\)\|", x)) for x in results} == {9}


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("50% & more", r"50\% \& more"),
        ("a_b^c~d", r"a\_b\textasciicircum{}c\textasciitilde{}d"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("$1 #2\nnext", r"\$1 \#2 next"),
    ],
)
def test_latex_escapes(text: str, latex: str) -> None:
    assert tex(text) == latex


def test_markdown_and_csv_escapes() -> None:
    assert md("a|b <i>*x*</i>\n# y") == r"a\|b \<i\>\*x\*\</i\> \# y"
    assert to_csv(["a", "b"], [("=1+1", 0.1 + 0.2), (None, 'x"y,z')]) == 'a,b\n\'=1+1,0.3\n,"x""y,z"\n'


def test_nothing_tested_yet_is_a_report_too(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="SFT", status=None, epochs=1, valid=None)
    write_run(tmp_path / "b", method="BEAR", role="trial", status="failed", error="x", hit=None, valid=None)
    found = Page(write_report(tmp_path).read_text())
    assert "No run has test results yet" in found.text
    assert "No trial has finished with a validation result yet." in found.text


def test_a_run_without_any_record_does_not_stop_the_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", method="SFT", n=20)
    (folder / "metrics.jsonl").write_text("")
    assert "No method run has logged a step." in Page(write_report(tmp_path).read_text()).text


def test_command_prints_the_page_and_writes_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "s"
    write_run(storage / "a", method="SFT", n=20)
    command(storage)
    assert capsys.readouterr().out.strip() == str(storage / "report" / "index.html")
    command(storage, out=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "index.html").exists()


def test_command_on_nothing_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        command(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match="holds no run"):
        command(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="SFT", n=20)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="cannot write the report"):
        write_report(tmp_path, tmp_path / "taken")


def test_many_methods_have_distinct_line_styles(tmp_path: Path) -> None:
    from bearray.report.figures import COLOURS, DARK_COLOURS, HATCHES, LINES, MARKERS

    assert len(set(COLOURS)) == len(set(map(str, LINES))) == len(set(MARKERS)) == len(set(HATCHES)) == 8
    assert len(DARK_COLOURS) == len(COLOURS)


def test_sweep_with_everything_is_found_in_a_parent_folder(tmp_path: Path) -> None:
    storage = tmp_path / "x" / "y"
    storage.mkdir(parents=True)
    write_sweep(storage)
    found = Page(write_report(tmp_path, tmp_path / "out").read_text())
    assert "train.epochs: 10 -> 3" in found.text
