"""What methods are called where people read: tables, figures and documents.

Programs know a method by the name of its objective or baseline ("d2lr"), and run folders by that in capitals
or by the label that a sweep gave it. Those stay as they are; only what is shown goes through here.
"""

from __future__ import annotations

NAMES = {
    "sft": "SFT", "d3": "D3", "cft": "CFT", "d2lr": "D2LR-IPS", "igd": "IGD", "msl": "MSL",
    "sdpo": "S-DPO", "sdpo_bear": "BEAR on S-DPO", "rosepo": "RosePO", "sprec": "SPRec", "bear": "BEAR",
    "beam_simulation": "(3.1)", "dpo": "DPO", "dmpo": "DMPO", "flower": "Flower", "best_of_n": "Best-of-N",
    "grpo": "GRPO", "sasrec": "SASRec", "bert4rec": "BERT4Rec", "dros": "DROS", "llm_cf": "LLM-CF",
    "dllm2rec": "DLLM2Rec",
}  # fmt: skip
"""By the name of the objective or baseline, in the order in which lists have them."""


def method_name(method: str) -> str:
    """What a method is called, by its name in lower or upper case, with - or _; other labels stay."""
    return NAMES.get(method.lower().replace("-", "_"), method)
