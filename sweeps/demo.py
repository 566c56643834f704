"""The whole pipeline on the built-in demo catalogue: no GPU, no download, minutes on two cores.

    python sweeps/demo.py --storage results/demo
    ray job submit -- python sweeps/demo.py --smoke

The catalogue, its users and the base model are made here; they show that the parts work and what a report
looks like, and say nothing about real recommendation.
"""

from pathlib import Path

from bearray.config import override
from bearray.data.demo import make_demo
from bearray.tuning.config import CPU, SearchConfig, SweepConfig
from bearray.tuning.main import main

DATA = Path("results/demo-data/demo")


def sweep() -> SweepConfig:
    """The cpu scale with a tiny base model and few trials, one core a trial so that two run at once."""
    changes = CPU | {"data.train_windows": 1_000, "train.epochs": 2, "train.cpus_per_worker": 0.9}
    defaults = SweepConfig()
    return SweepConfig(
        data_dir=str(DATA),
        storage="results/demo",
        base_model=("local:tiny",),
        scale="cpu",
        search=SearchConfig(trials=2),
        run=override(defaults.run, changes),
    )


def make_data(config: SweepConfig) -> None:
    if config.data_dir == str(DATA) and not DATA.exists():
        make_demo(DATA)


if __name__ == "__main__":
    main(sweep, prepare=make_data)
