"""Whether runs can be compared at all; else which of them, and what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from bearray.errors import ConfigError, DataError
from bearray.report.records import DECODINGS, Run
from bearray.report.rows import same_cases, why_other_cases


def check_comparable(
    runs: Sequence[Run], names: Mapping[str, str], metric: str, decoding: str | None
) -> tuple[str, list[str]]:
    """Check that runs were tested on the same cases by the same decoding.

    Args:
        runs: two or more.
        names: labels by run id.
        metric: hr@K or ndcg@K.
        decoding: one of `DECODINGS`; None: that of the first run that is no baseline.

    Returns:
        The decoding, and what a reader should know although it is no error.

    Raises:
        ConfigError: fewer than two runs, a metric that is none or looks further than the lists go, or a
            decoding that a run was not tested with.
        DataError: runs that were tested on other data or other cases; the message says what differs.
    """
    check_metric(metric)
    if len(runs) < 2:
        raise ConfigError("one run cannot be compared; give two run folders or more")
    decoding = decoding or next((run.normalize for run in runs if not run.is_baseline), DECODINGS[0])
    if decoding not in DECODINGS:
        raise ConfigError(f"decoding is {decoding!r}; it must be one of {', '.join(DECODINGS)}")
    for run in runs:
        if not run.predictions:
            why = run.reason or "it was not tested"
            raise ConfigError(f"{run.id} ({run.status}) has no test results: {why}")
        if run.tested(decoding) is None:
            shared = [d for d in DECODINGS if all(r.tested(d) is not None for r in runs)]
            mend = (
                f"give --decoding {' or '.join(shared)}"
                if shared
                else "no --decoding is common to these runs"
            )
            raise ConfigError(
                f"{run.id} has no test results with decoding {decoding!r} but with "
                f"{', '.join(run.predictions)}; {mend}"
            )
    _check_same_cases(runs, names, decoding)
    notes = _check_lengths(runs, metric, decoding)
    numbered = [names[run.id] for run in runs if run.is_baseline]
    if 0 < len(numbered) < len(runs):
        notes.append(f"No decoder is behind {', '.join(numbered)}: all titles are scored, in one way only.")
    return decoding, notes


def tested(run: Run, decoding: str) -> pd.DataFrame:
    """The test cases of a run that has them."""
    frame = run.tested(decoding)
    assert frame is not None, f"{run.id} was checked for {decoding}"
    return frame


def check_metric(metric: str) -> str:
    """hr@K or ndcg@K.

    Raises:
        ConfigError: anything else.
    """
    if not re.fullmatch(r"(hr|ndcg)@[1-9]\d{0,3}", metric):
        raise ConfigError(f"metric is {metric!r}; it must be hr@K or ndcg@K, for example ndcg@10")
    return metric


def _check_same_cases(runs: Sequence[Run], names: Mapping[str, str], decoding: str) -> None:
    first, *others = runs
    cases = tested(first, decoding)
    for run in others:
        own = tested(run, decoding)
        if same_cases(run, own) != same_cases(first, cases):
            why = why_other_cases(first, run, cases, own, (names[first.id], names[run.id]))
            raise DataError(
                f"{first.id} and {run.id} were not tested on the same cases: {why}. Runs can be compared "
                "when data, test windows and sample seed are the same"
            )


def _check_lengths(runs: Sequence[Run], metric: str, decoding: str) -> list[str]:
    notes = []
    for run in runs:
        longest = max(len(items) for items in tested(run, decoding)["items"])
        if longest < int(metric.partition("@")[2]):
            raise ConfigError(
                f"metric is {metric!r}, but the lists of {run.id} have {longest} titles; take a smaller K"
            )
        if longest < 10:
            notes.append(f"The lists of {run.id} have {longest} titles, fewer than @10 looks at.")
    return notes
