"""How much beam search loses by pruning, measured: each target's true rank among all titles, and where the
search dropped it.

Supervised fine-tuning raises a title's overall probability, beam search keeps prefixes; a title of high
probability is lost when one of its prefixes is not among the best B (arXiv 2601.22925, section 3). `measure`
decodes test cases by every method and returns one row a case; `summarize` turns such rows into the pruning
rate PR@K, the reasons, and what exact search and wider beams gain.

    PR@K, exact:  of the targets that are truly among the K most probable titles of the catalogue, the share
                  that is not among the B titles of beam search
    PR@K, pool:   the same with the rank among the B titles found and the target itself. Cheap, and too
                  high: other titles that were pruned are not seen.

The paper's PR@K does not say which of the two it is. Everything is by overall log-probability (no length
penalty), with the normaliser that decodes.
"""

from bearray.pruning.cases import COLUMNS, WIDTHS, measure
from bearray.pruning.summary import summarize

__all__ = ["COLUMNS", "WIDTHS", "measure", "summarize"]
