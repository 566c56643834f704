"""Everything that is missing, one step after the other, and the document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bearray.addresses import refuse_secrets
from bearray.config import differences, from_dict, to_dict
from bearray.errors import BearrayError, BusyError, ConfigError, MissingFileError, StorageError
from bearray.lock import held
from bearray.paper.config import PaperConfig, defaults
from bearray.paper.cost import costs, lines
from bearray.paper.data import prepare_data, write_record
from bearray.paper.document.write import write_document
from bearray.paper.parts import needs
from bearray.paper.steps import Step, steps
from bearray.paper.stored import RECORD, read_record
from bearray.runs import Storage
from bearray.tuning.config import CPU, SMOKE
from bearray.tuning.watch import say

DOCUMENT_SECONDS = 120.0
"""The document is written after a step if it is older than this, since it takes seconds itself."""


def run_paper(config: PaperConfig) -> Path:
    """Say what is missing and what it costs, run it, write the document; the same call again continues.

    A step that fails stops only what builds on it; the document shows what is there, the error comes last.

    Returns:
        Path of the document.

    Raises:
        BearrayError: a setting or the data cannot work, found before anything is run; or steps have failed.
        BusyError: another process is at work on the storage.
        StorageError: the storage has become full or read-only; nothing more is tried.
    """
    refuse_secrets(config.storage)
    if "://" in config.storage:
        raise ConfigError(
            f"storage is {config.storage}; the document needs a folder: mount it, or use a shared disk"
        )
    if config.document_only:
        document = write_document(_recorded(config))
        say("document: ", (str(document), "bold"))
        return document
    storage = Storage(config.storage)
    storage.check_writable()
    with held(storage, "paper"):
        datasets = prepare_data(config)
        todo = list(steps(config, needs(config)))
        for step in todo:  # changed settings of any part are refused before the first is continued
            step.check()
        for line in lines(costs(config, todo), config):
            say(line)
        if config.dry_run:
            return Path(storage.root)
        write_record(config, datasets)
        failed = _work(config, todo, storage)
        document = write_document(config)
    say("document: ", (str(document), "bold"))
    if failed:
        raise BearrayError(f"these steps failed: {'; '.join(failed)}; run the same command again to continue")
    return document


def _work(config: PaperConfig, todo: Sequence[Step], storage: Storage) -> list[str]:
    """Do the steps; what failed, and why."""
    began, failed = time.monotonic(), []
    written = began
    for i, step in enumerate(todo, 1):
        what = f"{step.part.folder}: {step.title}"
        if step.done() >= step.runs():
            say((f"step {i} of {len(todo)}", "dim"), f" {what}: already done")
            continue
        minutes = (time.monotonic() - began) / 60
        say((f"step {i} of {len(todo)}", "bold"), f" {what} ({minutes:.0f} minutes so far)")
        try:
            step.do()
        except (BusyError, StorageError):
            raise
        except BearrayError as error:
            failed.append(f"{what}: {error}")
            say((f"{what} failed:", "red"), f" {error}")
        if time.monotonic() - written < DOCUMENT_SECONDS:
            continue
        try:
            write_document(config, pdf=False)  # an overnight run can be looked at while it goes on
            written = time.monotonic()
        except BearrayError as error:  # it is written again at the end, and fails there if it must
            say(("the document cannot be written:", "red"), f" {error}")
    return failed


def _recorded(config: PaperConfig) -> PaperConfig:
    """What was asked for last on the storage, with the tables and figures that are asked for now.

    Raises:
        MissingFileError: nothing was run there.
        DataError: paper.json is damaged.
        ConfigError: another setting is given, and not the one that the storage has.
    """
    storage = Storage(config.storage)
    if not storage.exists(RECORD):
        raise MissingFileError(
            f"{storage.root} has no {RECORD}; give the --storage of an earlier call, or no --document-only"
        )
    before = from_dict(PaperConfig, read_record(storage)["config"])
    _check_only_shown(config, before)
    asked = bool(config.table or config.figure)
    chosen = (config.table, config.figure) if asked else (before.table, before.figure)
    return replace(before, storage=config.storage, table=chosen[0], figure=chosen[1], document_only=True)


_OF_A_CALL = {"table", "figure", "storage", "data_dir", "gpu", "dry_run", "document_only", "smoke", "scale"}
"""Settings that say what this call does, or on what machine."""


def _check_only_shown(config: PaperConfig, before: PaperConfig) -> None:
    """Refuse what the document cannot take from a command line: what was run is what it shows."""
    plain = defaults().at_scale(config.scale, SMOKE if config.scale == "smoke" else CPU)
    old, now, usual = (to_dict(each) for each in (before, config, plain))
    given = {line.partition(":")[0] for line in differences(usual, now)}
    others = [(line.partition(":")[0], line) for line in differences(old, now)]
    changed = [line for name, line in others if name in given and name.partition(".")[0] not in _OF_A_CALL]
    if changed:
        raise ConfigError(
            f"--document-only shows what the last call on {config.storage} ran, and takes --table and "
            f"--figure only; give these without it, or not at all: {'; '.join(changed)}"
        )
