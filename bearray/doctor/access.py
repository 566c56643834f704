"""Ray's token, a cluster, storage, the hub of base models."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path
from typing import Any

from bearray.doctor.finding import Finding
from bearray.errors import BearrayError
from bearray.runs import Storage

MODES = ("token", "disabled")
GENERATE = "ray get-auth-token --generate"


def token_file() -> Path:
    """Where Ray looks for its token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def check_token() -> Finding:
    """Ray's token is there, private, and asked for; it is never shown."""
    name, mode, file = "Ray token", os.environ.get("RAY_AUTH_MODE", ""), token_file()
    if mode and mode.lower() not in MODES:
        return Finding(
            name, "problem", f"RAY_AUTH_MODE is {mode!r}", f"set it to one of {', '.join(MODES)}, or unset it"
        )
    if mode.lower() == "disabled":
        return Finding(
            name,
            "warning",
            "RAY_AUTH_MODE=disabled: whoever reaches the cluster's ports can run programs on it",
            "unset it, unless nobody else can reach this machine",
        )
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Finding(name, "ok", "given by RAY_AUTH_TOKEN")
    try:
        content = file.read_text()
        permissions = stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        if mode.lower() == "token":
            return Finding(name, "problem", f"RAY_AUTH_MODE=token, but {file} does not exist", GENERATE)
        return Finding(
            name, "note", f"{file} does not exist; a local Ray makes one, a cluster needs one", GENERATE
        )
    except (OSError, UnicodeDecodeError) as error:
        return Finding(name, "problem", f"{file} cannot be read: {error}", f"chmod 600 {file}")
    if not content.strip():
        return Finding(name, "problem", f"{file} is empty", f"rm {file} && {GENERATE}")
    if permissions & 0o077:
        return Finding(
            name, "warning", f"{file} can be read by other users ({permissions:o})", f"chmod 600 {file}"
        )
    if not mode:
        return Finding(
            name, "ok", f"{file}; for commands such as ray job submit, set RAY_AUTH_MODE=token to send it"
        )
    return Finding(name, "ok", f"{file}")


def check_cluster(address: str | None = None) -> Finding:
    """A running cluster answers, and what it has. None is started.

    Args:
        address: of the cluster; None: RAY_ADDRESS, or the one that runs on this machine.
    """
    name, place = "cluster", address or os.environ.get("RAY_ADDRESS") or "auto"
    ray: Any = importlib.import_module("ray")
    where = "on this machine" if place == "auto" else f"at {place}"
    try:
        ray.init(address=place, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # connection, version and token errors have no common class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Finding(
            name,
            "problem",
            f"none answers {where}: {reason}",
            "start one (ray start --head, or ray up cluster/gpu.yaml) and set RAY_ADDRESS; its clients need "
            "RAY_AUTH_MODE=token",
        )
    try:
        have, nodes = ray.cluster_resources(), [node for node in ray.nodes() if node.get("Alive")]
    finally:
        ray.shutdown()  # leaves the cluster alone: it was not started here
    gpus, cpus = have.get("GPU", 0), have.get("CPU", 0)
    text = f"{where}: {len(nodes)} node{'s' * (len(nodes) != 1)}, {cpus:g} CPUs, {gpus:g} GPUs"
    if cpus < 2:
        return Finding(name, "problem", text, "a trial needs a CPU for its worker and part of one for itself")
    return Finding(name, "ok", text)


def check_storage(path: str) -> Finding:
    """Results can be written there: a small file is written and removed."""
    try:
        Storage(path).check_writable()
    except (BearrayError, OSError, ValueError) as error:
        return Finding(
            "storage",
            "problem",
            str(error),
            "check the path, its permissions and its room; for s3:// and gs:// also the credentials",
        )
    shared = "" if "://" in path else "; on a cluster, every node must see it"
    return Finding("storage", "ok", f"{path} can be written{shared}")


def check_hub() -> Finding:
    """Where base models are kept, and whether the hub's gated ones can be asked for; no token is shown."""
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        constants: Any = importlib.import_module("huggingface_hub.constants")
        cache = Path(constants.HF_HUB_CACHE)
        known = sorted(p.name.removeprefix("models--").replace("--", "/") for p in cache.glob("models--*"))
        has_token = bool(hub.get_token())
    except Exception as error:  # a damaged installation or cache
        return Finding("base models", "warning", f"the hub's library does not work: {error}", "make setup")
    offline = bool(getattr(constants, "HF_HUB_OFFLINE", False))
    there = ", ".join(known[:5]) if known else "none"
    text = f"in {cache}: {there}"
    if offline:
        return Finding(
            "base models",
            "note",
            f"{text}; HF_HUB_OFFLINE is set, so nothing is downloaded",
            "unset HF_HUB_OFFLINE to download a base model; local:tiny needs none",
        )
    if not has_token and not known:
        return Finding(
            "base models",
            "note",
            f"{text}; no hub token",
            "for gated ones (Llama): accept the licence on the hub, then hf auth login; local:tiny needs "
            "none",
        )
    return Finding("base models", "ok", text)
