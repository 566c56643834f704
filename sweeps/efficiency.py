"""What each objective and decoder costs: interleaved rounds under Ray, a table, and time against NDCG@10.

    python sweeps/efficiency.py --smoke
    python sweeps/efficiency.py --data-dir data/office --storage results/office --scale cpu

The first measures on the demo catalogue, in a minute or two. With the storage of a finished sweep, as in the
second, its runs are set against what an epoch of their objectives costs (the paper's Figures 5 and 9), and
its report gains the section "What it costs". Give the same scale and settings as to the sweep.
"""

from pathlib import Path

from bearray.commands.bench import main
from bearray.data.demo import make_demo
from bearray.efficiency.config import EfficiencyConfig

DATA = Path("results/demo-data/demo")


def sweep() -> EfficiencyConfig:
    return EfficiencyConfig(data_dir=str(DATA), storage="results/efficiency")


def make_data(config: EfficiencyConfig) -> None:
    if config.data_dir == str(DATA) and not DATA.exists():
        make_demo(DATA)


if __name__ == "__main__":
    main(sweep, prepare=make_data)
