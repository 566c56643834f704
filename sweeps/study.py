"""All objectives on one data set, with several seeds: each chosen by validation, and tested once.

    bearray data fetch office --out data/office
    ray job submit -- python sweeps/study.py --storage s3://bucket/study-office

Small, on two cores, with a stand-in that has been trained for longer than the usual one, which hits nothing
on Office at this size:

    bearray base-model build --data-dir data/office --steps 1500 --out results/base-office
    python sweeps/study.py --scale cpu --base-model results/base-office

Tested by beam search under both normalisers and by exact search, so the report has PR@10 by true rank of
each. Preference objectives start from the SFT run's adapter. Where and why beam search loses targets is a
second command; then the report is written again:

    bearray pruning results/study-office --windows 300 --widths 20
    bearray report results/study-office
"""

from dataclasses import replace

from bearray.config import override
from bearray.objectives import OBJECTIVES
from bearray.tuning.config import Scale, SearchConfig, SweepConfig, scaled
from bearray.tuning.main import main
from bearray.tuning.published import published_settings


def sweep() -> SweepConfig:
    """The paper's settings, and each method's own."""
    return SweepConfig(
        data_dir="data/office",
        storage="results/study-office",
        methods=tuple(OBJECTIVES),
        seeds=(42, 43, 44),
        method_settings=published_settings(tuple(OBJECTIVES)),
        run=override(SweepConfig().run, {"evaluation.exact_test": True}),
    )


def at_scale(config: SweepConfig, scale: Scale) -> SweepConfig:
    """cpu: an hour or so on two cores for all of it. smoke: minutes, too few steps to learn anything."""
    config = scaled(config, scale)
    if scale == "paper":
        return config
    smoke = scale == "smoke"
    sizes = {"data.train_windows": 1_000, "data.valid_windows": 300, "data.test_windows": 400}
    changes = {"data.train_windows": 64} if smoke else sizes
    return replace(
        config,
        seeds=(42,) if smoke else (42, 43),
        search=SearchConfig(trials=2 if smoke else 3),
        method_settings=published_settings(tuple(OBJECTIVES), small=True),
        run=override(
            config.run, {**changes, "train.epochs": 2 if smoke else 3, "train.cpus_per_worker": 0.9}
        ),
    )


if __name__ == "__main__":
    main(sweep, at_scale=at_scale)
