"""Decoders over the same test windows, as evaluation calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from bearray.backbones.load import load_model
from bearray.backbones.lora import load_adapter, merge_for_inference
from bearray.config import RunConfig
from bearray.efficiency.generate import Generate
from bearray.efficiency.variants import Decoder
from bearray.forward import causal_lm, use_tree_attention
from bearray.recommend import DecoderInputs, recommend
from bearray.task import Case, Task, sampled_windows
from bearray.training.start import start_weights
from bearray.vectors import attach_new, attach_saved


class DecodingContenders:
    """One piece of work is the decoding of a turn's users. Prompts are tokenised before it.

    The model is the base model, or with `train.init_adapter` that adapter on it, merged where evaluation
    merges it.

    Args:
        run: data, model, decoding.
        decoders: by label.
        task: the run's data in tokens.
        users: test windows of a turn.
        device: where the model goes.
    """

    def __init__(
        self, run: RunConfig, decoders: Mapping[str, Decoder], task: Task, *, users: int, device: torch.device
    ) -> None:
        self.labels: Sequence[str] = list(decoders)
        self.decoders = dict(decoders)
        self.task, self.users, self.device = task, users, device
        self.pad_token_id = task.pad_token_id
        self.inputs = DecoderInputs(task, device)
        self.windows = len(sampled_windows(task.dataset, run.data, "test"))
        methods = {d.config.method for d in decoders.values()}
        self._plain, self._whole = _models(run, task, device, keep_adapter="grounding" in methods)
        self._generate = Generate(task) if any(d.peer for d in decoders.values()) else None
        self._cases: tuple[int, list[Case]] = (-1, [])
        self.found: dict[str, np.ndarray] = {}
        """Titles of the last turn of each label, [users, beams]."""

    def model(self, label: str) -> nn.Module:
        """Grounding compares with the base model, so it gets the adapter unmerged."""
        return self._plain if self.decoders[label].config.method == "grounding" else self._whole

    def body(self, label: str) -> nn.Module:
        body = causal_lm(self.model(label)).base_model
        assert isinstance(body, nn.Module)
        return body

    def begin(self, label: str, number: int) -> list[Callable[[], None]]:
        return [partial(self._decode, label, self.cases(number))]

    def weights(self, label: str) -> list[float]:
        return [1.0]

    def size(self, number: int) -> int:
        """Users of a turn."""
        return len(self.cases(number))

    def cases(self, number: int) -> list[Case]:
        """The windows of a round: the next ones of the test split, from its start again after its end."""
        if self._cases[0] != number:
            rows = sorted({(number * self.users + i) % self.windows for i in range(self.users)})
            self._cases = (number, self.task.cases("test", rows))
        return self._cases[1]

    def _decode(self, label: str, cases: list[Case]) -> None:
        decoder, model = self.decoders[label], self.model(label)
        if decoder.peer:
            assert self._generate is not None
            self.found[label] = self._generate(model, cases, decoder.config, self.device)
        else:
            self.found[label], _ = recommend(model, cases, decoder.config, self.inputs)


def _models(
    run: RunConfig, task: Task, device: torch.device, *, keep_adapter: bool
) -> tuple[nn.Module, nn.Module]:
    """(with the adapter aside, ready to decode); one and the same model where that will do."""
    model: Any = load_model(run.model.base, dtype=run.model.dtype, device=device)
    use_tree_attention(model, device)
    soft = run.model.backbone != "bigrec"
    if run.train.init_adapter is None:
        if soft:
            attach_new(model, task.backbone, None)
        return model, model
    with start_weights(run.train.init_adapter) as start:
        if start.adapter is not None:
            model = load_adapter(model, start.adapter)
        if start.soft is not None and soft:
            attach_saved(model, task.backbone, start.soft)
        model.eval()
    # In bfloat16 the merge would round the adapter away.
    if start.adapter is None or model.dtype != torch.float32:
        return model, model
    merged: nn.Module = merge_for_inference(model, copy_base=keep_adapter)
    return (model if keep_adapter else merged), merged
