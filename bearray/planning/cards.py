"""Graphics cards by their makers' data sheets, and CPU cores by what this project has measured."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bearray.errors import ConfigError


@dataclass(frozen=True)
class Device:
    """What computes: a card by its data sheet, or a CPU core."""

    name: str
    peak: float
    """Dense rate [FLOP/s] of the type that it trains in: bfloat16, or float32 where it has none."""
    memory: float
    """Bytes, as the data sheet counts them (10^9 a GB)."""
    source: str
    bf16: bool = True
    """Its hardware computes in bfloat16."""

    @property
    def is_gpu(self) -> bool:
        return self.name != CPU_NAME

    @property
    def element(self) -> int:
        """Bytes of a weight or an activation."""
        return 2 if self.bf16 else 4


_AWS = "https://d1.awsstatic.com/product-marketing/ec2/"
_GEFORCE = "NVIDIA's white paper "
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
CARDS = {
    "l4": Device("L4", 121e12, 24e9, f"{_NVIDIA}l4/"),
    "l40s": Device("L40S", 362e12, 48e9, f"{_NVIDIA}l40s/"),
    "a100-80gb": Device("A100 80GB SXM", 312e12, 80e9, f"{_NVIDIA}a100/"),
    "a100-40gb": Device("A100 40GB", 312e12, 40e9, f"{_NVIDIA}a100/"),
    "h100": Device("H100 SXM", 989e12, 80e9, f"{_NVIDIA}h100/"),
    "h200": Device("H200 SXM", 989e12, 141e9, f"{_NVIDIA}h200/"),
    "a10g": Device("A10G", 70e12, 24e9, f"{_AWS}NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf"),
    "rtx-3090": Device("RTX 3090", 71e12, 24e9, f"{_GEFORCE}ampere-ga-102-gpu-architecture-whitepaper-v2"),
    "rtx-4090": Device("RTX 4090", 165e12, 24e9, f"{_GEFORCE}ada-gpu-architecture"),
    "rtx-5090": Device("RTX 5090", 209e12, 32e9, f"{_GEFORCE}rtx-blackwell-gpu-architecture"),
    "v100": Device("V100 32GB SXM", 15.7e12, 32e9, f"{_NVIDIA}v100/", bf16=False),
    "t4": Device("T4", 8.1e12, 16e9, f"{_NVIDIA}tesla-t4/", bf16=False),
}  # fmt: skip
"""By the name that --gpu takes. V100 and T4 have no bfloat16, so their float32 rate counts: bearray trains in
bfloat16 or float32."""

CPU_NAME = "CPU core"
CPU_CORE = Device(CPU_NAME, 125e9, 4e9, "benchmarks/results/training-cpu-small.json", bf16=False)
"""A core of the machine that the committed benchmarks ran on: its rate over the assumed utilisation; memory
is what is taken for granted for each."""


def card(name: str) -> Device:
    """A card by name; case, spaces, "nvidia" and missing dashes do not matter.

    Raises:
        ConfigError: it is not known; the message says how to describe any card.
    """
    wanted = _plain(name)
    wanted = {"a100": "a10080gb", "h100sxm": "h100", "h200sxm": "h200"}.get(wanted, wanted)
    for key, device in CARDS.items():
        if wanted in (_plain(key), _plain(device.name)):
            return device
    raise ConfigError(
        f"--gpu {name} is not known; it must be one of {', '.join(CARDS)}, or give the card's data sheet: "
        "--gpu-memory (GB) and --gpu-tflops (dense bfloat16)"
    )


def card_called(gpu: str) -> Device | None:
    """The card that PyTorch calls so, such as "NVIDIA H100 80GB HBM3"; None if it is none of them."""
    words = gpu.lower().replace("-", " ")
    keys = sorted(CARDS, key=len, reverse=True)
    found = next((k for k in keys if all(_holds(words, part) for part in k.split("-"))), None)
    return None if found is None else CARDS[found]


def _holds(words: str, part: str) -> bool:
    """Whether a word is there by itself: L4 is no L40S."""
    return re.search(rf"(?<![a-z0-9]){re.escape(part)}(?![a-z0-9])", words) is not None


def device_here() -> Device:
    """What this process would compute on: its first GPU, else a CPU core.

    Raises:
        ConfigError: a GPU that is none of `CARDS`.
    """
    import torch

    if not torch.cuda.is_available():
        return CPU_CORE
    name = torch.cuda.get_device_name(0)
    found = card_called(name)
    if found is None:
        raise ConfigError(
            f"{name} is none of the cards that are known ({', '.join(CARDS)}); describe it by memory and "
            "rate: "
            "--gpu-memory (GB) and --gpu-tflops (dense bfloat16)"
        )
    return found


def described(name: str | None, memory_gb: float | None, tflops: float | None) -> Device:
    """A card by name, or by its memory and rate, which win over what the name says.

    Raises:
        ConfigError: neither a name nor both numbers, or numbers that are not above 0.
    """
    for option, value in (("--gpu-memory", memory_gb), ("--gpu-tflops", tflops)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{option} is {value}; it must be above 0")
    if memory_gb is not None and tflops is not None and (name is None or not _known(name)):
        return Device(name or "GPU as described", tflops * 1e12, memory_gb * 1e9, "as given")
    if name is None:
        raise ConfigError("give --gpu, or both --gpu-memory (GB) and --gpu-tflops (dense bfloat16)")
    found = card(name)
    if memory_gb is not None:
        found = replace(found, memory=memory_gb * 1e9)
    return found if tflops is None else replace(found, peak=tflops * 1e12)


def _known(name: str) -> bool:
    try:
        card(name)
    except ConfigError:
        return False
    return True


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())
