"""The Ray Data actor: loads task and model once, decodes shard after shard."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bearray.backbones.load import load_model
from bearray.backbones.lora import load_adapter, merge_for_inference
from bearray.config import RunConfig, from_dict, override
from bearray.evaluation.predictions import shard_rows, to_table, write_shard
from bearray.quiet import quiet_libraries
from bearray.recommend import recommend
from bearray.runs import Storage, fetch_folder
from bearray.task import Split, load_task
from bearray.training.checkpoint import ADAPTER


class ShardDecoder:
    """Decodes shards of a split and writes them to storage.

    Args:
        config: `to_dict(RunConfig)`.
        checkpoint: folder of a training checkpoint, or None for the bare base model.
        split: which split.
        total: windows of the split.
    """

    def __init__(self, config: dict[str, Any], checkpoint: str | None, split: Split, total: int) -> None:
        quiet_libraries()
        self.config = from_dict(RunConfig, config)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.split, self.total = split, total
        self.task = load_task(self.config)
        self.trie = self.task.catalog.trie.to(self.device)
        self.item_of_title = np.array([items[0] for items in self.task.catalog.items_of_title])
        model: Any = load_model(self.config.model.base, dtype=self.config.model.dtype, device=self.device)
        if checkpoint is not None:
            with fetch_folder(checkpoint) as local:
                model = load_adapter(model, local / ADAPTER)
            if model.dtype == torch.float32:
                model = merge_for_inference(model)  # in bfloat16 the merge would round the adapter away
        self.model = model.eval()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Decode the shards of a batch (columns shard, normalize, folder) and say how many windows each
        had."""
        counts = []
        for shard, normalize, folder in zip(batch["shard"], batch["normalize"], batch["folder"], strict=True):
            rows = shard_rows(int(shard), self.config.evaluation.shard_size, self.total)
            cases = self.task.cases(self.split, rows)
            titles, scores = recommend(
                self.model,
                cases,
                self.trie,
                override(self.config.decoding, {"normalize": str(normalize)}),
                pad_token_id=self.task.pad_token_id,
                device=self.device,
            )
            table = to_table(cases, titles, scores, self.item_of_title)
            write_shard(Storage(str(folder)), int(shard), table)
            counts.append(len(cases))
        return {"shard": batch["shard"], "windows": np.array(counts)}
