"""PR@K from tested lists alone: a run whose test cases were decoded by its beam search and by exact search
needs no further analysis to tell how many targets the beam lost."""

from __future__ import annotations

from bearray.report.records import Run, number


def pruned_of(run: Run, k: int) -> tuple[int, int] | None:
    """Targets among the `k` most probable titles that the run's beam search lost, and how many such targets
    there are, over all its test cases: PR@k of BEAR (arXiv 2601.22925, Figure 4) by true rank.

    None where the lists do not tell: no exact search, or not every list of it is proven; another decoder than
    beam search; lists shorter than `k`; or scores with a length penalty, which rank otherwise than the
    probability does.
    """
    decoding = run.settings.get("decoding") or {}
    own, exact = run.predictions.get(run.normalize), run.predictions.get("exact")
    if own is None or exact is None or run.proven() != 1.0 or not own["row"].equals(exact["row"]):
        return None
    width, penalty = (number(decoding.get(name)) or 0 for name in ("beam_width", "length_penalty"))
    if decoding.get("method") != "beam" or penalty or width < k:
        return None
    deserving = (exact["rank"] < k).to_numpy()
    lost = deserving & ~(own["rank"] < k).to_numpy()
    return int(lost.sum()), int(deserving.sum())
