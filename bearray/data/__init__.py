"""Data sets: open, check, prepare, download, describe; prompts; the demo catalogue.

A data set on disk is a folder with `items.parquet` (item_id int32, title str) and
`sequences_{train,valid,test}.parquet` (user_id int32, item_ids list<int32> with the target last, timestamp
int64).
"""

from bearray.data.dataset import SPLITS, Dataset, Split, open_dataset
from bearray.data.titles import clean_title

__all__ = ["SPLITS", "Dataset", "Split", "clean_title", "open_dataset"]
