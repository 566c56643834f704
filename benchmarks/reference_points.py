"""What a list says that knows nothing: HR@10 and NDCG@10 of random titles and of the most popular ones.

    python benchmarks/reference_points.py --data-dir data/office

A method below these numbers has learnt nothing that a count could not tell. Popularity is counted on the
training split; the test windows and their metrics are those of a sweep (data.test_windows,
data.sample_seed).
"""

from __future__ import annotations

import json

import numpy as np
import tyro

from bearray.config import DataConfig
from bearray.data import clean_title, open_dataset
from bearray.extras import interaction_counts
from bearray.metrics import evaluate


def main(data_dir: str, *, test_windows: int | None = DataConfig().test_windows, k: int = 10) -> None:
    """Print the reference points as JSON.

    Args:
        data_dir: A prepared data set.
        test_windows: As in the sweep.
        k: Length of the lists.
    """
    dataset = open_dataset(data_dir)
    titles = [clean_title(t) for t in dataset.items["title"]]
    number = {title: i for i, title in enumerate(dict.fromkeys(titles))}
    title_of_item = {
        int(item): number[title] for item, title in zip(dataset.items["item_id"], titles, strict=True)
    }
    counts = interaction_counts(dataset.train, title_of_item, len(number))
    place = np.empty(len(number))
    place[np.argsort(-counts, kind="stable")] = np.arange(len(number))
    frame = dataset.sample("test", test_windows, DataConfig().sample_seed).copy()
    ranks = np.array([place[title_of_item[int(items[-1])]] for items in frame["item_ids"]])
    frame["rank"] = np.where(ranks < k, ranks, np.inf)
    popular = evaluate(frame, [k])["all"]
    gains = 1 / np.log2(np.arange(k) + 2)
    random = {f"hr@{k}": k / len(number), f"ndcg@{k}": float(gains.sum()) / len(number)}
    print(json.dumps({"titles": len(number), "random (expected)": random, "most popular": popular}, indent=2))


if __name__ == "__main__":
    tyro.cli(main)
