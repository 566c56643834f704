"""Amazon Book at the paper's settings: search lambda and xi of BEAR, with SFT and MSL beside it.

    bearray data fetch book --out data/book
    ray job submit -- python sweeps/book.py --storage s3://bucket/book
    python sweeps/book.py --data-dir data/book --storage results/book --scale cpu

The paper (arXiv 2601.22925, section 5.1): Llama-3.2-3B, LoRA rank 8 on the query and value projections,
10,000 training windows, 10 epochs, 128 windows a step, learning rate 1e-4, beam width 10.
"""

from bearray.tuning.config import SweepConfig
from bearray.tuning.main import main


def sweep() -> SweepConfig:
    return SweepConfig(data_dir="data/book", storage="results/book")


if __name__ == "__main__":
    main(sweep)
