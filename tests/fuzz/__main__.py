"""Fuzz every reader: `make fuzz`, or `python -m tests.fuzz --inputs 10000 --seed 0`.

Inputs are numbered and depend on reader, seed and number alone: `--reader trie --seed 0 --first 17 --inputs 1
--keep DIR` repeats one and keeps its files. Each reader runs in a process of its own, with bounded memory,
which is killed and counted where it hangs in native code or dies. Exit code 1 if there was a defect.

With `--json FILE` the counts go there, each reader's with its revision; readers that are in the file and not
in this run stay. benchmarks/results/fuzz.json is what docs/security.md shows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bearray.provenance import git_revision
from tests.fuzz.harness import Outcome
from tests.fuzz.processes import run_reader
from tests.fuzz.readers import READERS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs in all, or of the one reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--reader", choices=[r.name for r in READERS], action="append", help="only these")
    parser.add_argument("--keep", type=Path, help="copy the last input's files here")
    parser.add_argument("--json", type=Path, help="write the counts here, beside those of other readers")
    options = parser.parse_args()
    chosen = [r for r in READERS if options.reader is None or r.name in options.reader]
    total, rows, defects = sum(r.share for r in chosen), [], 0
    print(f"{'reader':<18}{'inputs':>8}{'read':>8}{'refused':>9}{'defects':>9}{'seconds':>9}", flush=True)
    for reader in chosen:
        count = max(1, round(options.inputs * reader.share / total))
        began = time.monotonic()
        found = run_reader(
            reader.name, options.seed, range(options.first, options.first + count), options.keep
        )
        kinds = Counter(outcome.kind for _, outcome in found)
        row: dict[str, Any] = {
            "reader": reader.name,
            "inputs": len(found),
            **{k: kinds[k] for k in ("read", "refused", "defect")},
            "seed": options.seed,
            "first": options.first,
            "seconds": round(time.monotonic() - began, 1),
            "git": git_revision(),
        }
        rows.append(row)
        if options.json is not None:
            keep(options.json, row)
        print(f"{row['reader']:<18}{row['inputs']:>8}{row['read']:>8}{row['refused']:>9}{row['defect']:>9}"
              f"{row['seconds']:>9.1f}", flush=True)  # fmt: skip
        wrong: dict[str, list[tuple[int, Outcome]]] = {}
        for number, outcome in found:
            if outcome.kind == "defect":
                wrong.setdefault(outcome.what, []).append((number, outcome))
        for what, cases in wrong.items():
            number, outcome = cases[0]
            tail = outcome.detail.strip().splitlines()[-1:] or [""]
            print(
                f"    {len(cases)}x {what}; first: input {number} ({outcome.damage}): {tail[0][:300]}",
                flush=True,
            )
        defects += kinds["defect"]
    print(f"{sum(r['inputs'] for r in rows)} inputs, seed {options.seed}: {defects} defects")
    return 1 if defects else 0


def keep(file: Path, row: dict[str, Any]) -> None:
    """Write a reader's row, in the order of the readers; those of others that the file has are kept."""
    rows = json.loads(file.read_text())["readers"] if file.exists() else []
    by_name = {each["reader"]: each for each in [*rows, row]}
    known = [by_name[reader.name] for reader in READERS if reader.name in by_name]
    file.write_text(json.dumps({"readers": known}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
