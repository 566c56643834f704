"""The paper's document: read the storage, put everything together, write it in one go."""

from __future__ import annotations

from pathlib import Path

from bearray.paper.config import PaperConfig
from bearray.paper.document import export
from bearray.paper.document.entries import data_rows
from bearray.paper.document.findings import build_findings
from bearray.paper.document.page import Element, page
from bearray.paper.document.pdf import write_pdf
from bearray.paper.document.plates import build_plate
from bearray.paper.document.read import Material, read_material
from bearray.paper.document.sheets import Sheet, build_sheets
from bearray.paper.document.words import figure_facts, sheet_facts, table_1_facts
from bearray.paper.parts import elements
from bearray.paper.stored import DOCUMENT
from bearray.report.figures import save
from bearray.report.files_out import replaced_together, write_texts
from bearray.terminal import terminal

PDF = "paper.pdf"
_OURS = ("tables", "figures", PDF)
"""What the folder holds beside the page."""


def write_document(config: PaperConfig, *, pdf: bool = True) -> Path:
    """Write STORAGE/paper/: index.html, paper.pdf where there is a Chromium or Chrome, tables/ and figures/.

    Only run folders are read, so it can be called at any time, with nothing run or half of it; the same
    folders give the same bytes. Files of an earlier document that this one does not have are deleted.

    Args:
        config: what the document shows, and where the storage is.
        pdf: print it too, which takes a browser 15 seconds.

    Returns:
        The path of index.html.

    Raises:
        DataError: a file of a run, or paper.json, is damaged.
        StorageError: the document cannot be written.
    """
    material = read_material(config)
    sheets = {number: build_sheets(material, number) for number in (2, 3, 4, 5)}
    found = [_element(material, kind, number, sheets) for kind, number in elements(config)]
    data = data_rows(material)
    findings = build_findings(material, [sheet for own in sheets.values() for sheet in own])
    index = material.root / DOCUMENT
    texts = {
        "tables/findings.csv": export.findings_csv(findings),
        "tables/comparable.csv": export.facts_csv([(e.name, e.facts) for e in found]),
        index.name: page(config, found, data, findings, material.everything()),
    }
    for e in found:
        if e.plate is not None:
            texts[f"tables/{e.kind}{e.number}.csv"] = export.plate_csv(e.plate)
        else:
            own = export.table_files(config, e.number, e.sheets) if e.sheets else export.data_files(data)
            texts |= {f"tables/{name}": text for name, text in own.items()}
    with replaced_together(index.parent, last=index.name) as scratch:
        for e in found:
            for figure in e.plate.figures if e.plate else ():
                save(figure, scratch / "figures")
        write_texts(scratch, texts)
        why = write_pdf(scratch / index.name, scratch / PDF) if pdf else None
        if why is not None:
            terminal(stderr=True, soft_wrap=True).print(f"no {PDF}: {why}")
        _forget(index.parent, scratch)
    return index


def _element(material: Material, kind: str, number: int, sheets: dict[int, list[Sheet]]) -> Element:
    if kind == "figure":
        plate = build_plate(material, number)
        facts = figure_facts(material, number, plate.runs)
        return Element(kind=kind, number=number, facts=facts, plate=plate)
    if number == 1:
        return Element(kind=kind, number=number, facts=table_1_facts(material))
    facts = sheet_facts(material, number, sheets[number])
    return Element(kind=kind, number=number, facts=facts, sheets=sheets[number])


def _forget(target: Path, new: Path) -> None:
    """Delete what an earlier document left and the new one does not have."""
    for name in _OURS:
        old = [target / name] if (target / name).is_file() else sorted((target / name).glob("*"))
        for file in old:
            if file.is_file() and not (new / file.relative_to(target)).exists():
                file.unlink()
