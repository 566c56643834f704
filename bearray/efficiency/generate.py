"""The peer of beam search over the trie: `transformers.generate` with `prefix_allowed_tokens_fn`.

That is how the published code of BEAR and MSL decodes, and what bearray's own beam search must equal. It is
as a user would write it: a trie of dictionaries, asked for each beam and step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bearray.batching import left_pad
from bearray.config import DecodingConfig
from bearray.task import Case, Task

CPU_USERS, GPU_USERS = 8, 32
"""Users at a time where no batch size is asked for; on a CPU core 8 are fastest (benchmarks/decoding.py)."""


class Generate:
    """Beam search by `transformers`, over the task's titles.

    Args:
        task: catalogue and special tokens.
    """

    def __init__(self, task: Task) -> None:
        self.end, self.pad = task.eos_token_id, task.pad_token_id
        self.root: dict[int, Any] = {}
        self.titles: dict[tuple[int, ...], int] = {}
        self.longest = max(len(tokens) for tokens in task.catalog.tokens)
        for title, tokens in enumerate(task.catalog.tokens):
            node = self.root
            for token in [*tokens, self.end]:
                node = node.setdefault(int(token), {})
            self.titles.setdefault(tuple(int(t) for t in tokens), title)

    @torch.inference_mode()
    def __call__(
        self, model: nn.Module, cases: Sequence[Case], decoding: DecodingConfig, device: torch.device
    ) -> np.ndarray:
        """Title ids [U, B], best first, -1 where it found fewer; settings as beam search has them."""
        size = decoding.batch_size or (GPU_USERS if device.type == "cuda" else CPU_USERS)
        order = sorted(range(len(cases)), key=lambda i: len(cases[i].prompt), reverse=True)
        found = np.full((len(cases), decoding.beam_width), -1, dtype=np.int64)
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            found[rows] = self._batch(model, [cases[i].prompt for i in rows], decoding, device)
        return found

    def _batch(
        self, model: Any, prompts: list[list[int]], decoding: DecodingConfig, device: torch.device
    ) -> np.ndarray:
        ids, mask = left_pad(prompts, self.pad)
        width = ids.shape[1]

        def allowed(_: int, sentence: torch.Tensor) -> list[int]:
            node = self.root
            for token in sentence[width:].tolist():
                node = node.get(token, {})
            return list(node) or [self.end]

        out = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            prefix_allowed_tokens_fn=allowed,
            num_beams=decoding.beam_width,
            num_return_sequences=decoding.beam_width,
            do_sample=False,
            early_stopping=False,
            length_penalty=decoding.length_penalty,
            renormalize_logits=decoding.normalize == "trie",
            max_new_tokens=self.longest + 2,
        )
        rows = [[*row, self.end] for row in out[:, width:].tolist()]
        titles = [self.titles.get(tuple(row[: row.index(self.end)]), -1) for row in rows]
        return np.array(titles, dtype=np.int64).reshape(len(prompts), decoding.beam_width)
