"""Every table and figure of the BEAR paper: what is missing is run, and a document has ours beside theirs.

    python sweeps/paper.py --smoke
    ray job submit -- python sweeps/paper.py --storage /shared/paper --data-dir /shared/data

The first runs everything once on the demo catalogue, in minutes on two cores. `bearray paper` is the same
command. Give the same --storage again to continue, to add tables, data sets, backbones or seeds, or, with
--document-only, to write the document anew.
"""

from bearray.paper.config import PaperConfig, defaults
from bearray.paper.main import main


def sweep() -> PaperConfig:
    return defaults()


if __name__ == "__main__":
    main(sweep)
