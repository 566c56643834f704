"""Dependency audit: `pip check` always, and known vulnerabilities where PyPI tells them: of all that is
installed in .venv, and of what constraints.txt pins beyond that (the extras).

    python .ci/audit.py              as `make check`: says so and passes where the service does not answer
    python .ci/audit.py --required   as `make audit`: exit code 3 there

A mirror of PyPI often has packages and no vulnerabilities; pip-audit then finds none in anything and passes.
So a release with old, known ones is asked for first: an answer without them is no answer. pip-audit has an
environment of its own, made on first use, because its dependencies are none of the project's. Vulnerabilities
that were looked at and accepted are in .ci/audit-accepted.txt, each with its reason. Where the audit was not
done, a line that says so also goes into the file $BEARRAY_NOT_DONE, if there is one: .ci/run ends with it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = ROOT / ".ci" / "audit-accepted.txt"
PINS = ROOT / "constraints.txt"
HOME = ROOT / ".venv" / "audit"
PIP_AUDIT = "pip-audit==2.10.1"
CANARY = "https://pypi.org/pypi/jinja2/2.4.1/json"
"""Jinja2 2.4.1 of 2010 has several entries."""
NO_ANSWER = 3


def service_answers(url: str = CANARY, *, seconds: float = 5.0) -> bool:
    """Whether the vulnerability service is reachable and knows what it must know."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as response:
            return bool(json.load(response).get("vulnerabilities"))
    except (OSError, ValueError, AttributeError):
        return False


def accepted(file: Path = ACCEPTED) -> list[str]:
    """Ids of accepted vulnerabilities; a line is an id, white space, and a reason."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            name, *reason = line.split(maxsplit=1)
            if not reason:
                raise SystemExit(f"error: {file}, line {number}: {name} has no reason; each id needs one")
            found.append(name)
    return found


def inventory(installed: Iterable[Distribution], pins: Path = PINS) -> list[str]:
    """NAME==VERSION of each installed package but bearray, and of each pin that is not installed.

    A local part (`2.13.0+cpu`) is left out: vulnerabilities are those of the public version.
    """
    found = {}
    for each in installed:
        found[canonicalize_name(each.metadata["Name"])] = Version(each.version).public
    for line in pins.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        pin = Requirement(text)
        if pin.marker is None or pin.marker.evaluate():
            found.setdefault(canonicalize_name(pin.name), str(pin.specifier).removeprefix("=="))
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name != "bearray"]


def audit() -> int:
    """pip-audit on `inventory`; its exit code."""
    python = HOME / "bin" / "python"
    if not (HOME / "bin" / "pip-audit").exists():
        venv.create(HOME, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PIP_AUDIT]
        subprocess.run(install, check=True)
    ignored = [part for name in accepted() for part in ("--ignore-vuln", name)]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "installed.txt"
        listed.write_text("\n".join(inventory(distributions())) + "\n", encoding="utf-8")
        command = [str(HOME / "bin" / "pip-audit"), "-r", str(listed), "--disable-pip", "--no-deps"]
        return subprocess.run([*command, "--progress-spinner", "off", *ignored], check=False).returncode


def not_done(why: str) -> None:
    """Say that vulnerabilities were not looked for; also at the end of a CI run."""
    line = f"audit NOT done: {why}"
    print(line, file=sys.stderr)
    if place := os.environ.get("BEARRAY_NOT_DONE"):
        with open(place, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Audit the dependencies.")
    parser.add_argument(
        "--required", action="store_true", help="fail where vulnerabilities cannot be looked up"
    )
    options = parser.parse_args()
    broken = subprocess.run([sys.executable, "-m", "pip", "check"], check=False).returncode
    if broken:
        return broken
    if not service_answers():
        not_done(
            "pypi.org tells no vulnerabilities here (no network, or a mirror without them), so none were "
            "looked for; `make audit` does it where pypi.org answers"
        )
        return NO_ANSWER if options.required else 0
    return audit()


if __name__ == "__main__":
    sys.exit(main())
