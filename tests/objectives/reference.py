"""The losses again, as slow as they are plain: Python loops over float64 numbers, no masks, no tricks.

Losses come with their gradient with respect to the logits, by the chain rule written out by hand. Nothing
here is shared with `bearray.objectives`.
"""

from __future__ import annotations

import math

Row = list[float]


def softmax(row: Row, allowed: list[int], tau: float) -> dict[int, float]:
    """Probabilities of the allowed columns."""
    top = max(row[v] for v in allowed)
    parts = {v: math.exp((row[v] - top) / tau) for v in allowed}
    return {v: part / sum(parts.values()) for v, part in parts.items()}


def log_prob(row: Row, allowed: list[int], tau: float, column: int) -> float:
    top = max(row[v] for v in allowed)
    return (row[column] - top) / tau - math.log(sum(math.exp((row[v] - top) / tau) for v in allowed))


def threshold_column(row: Row, allowed: list[int], beam_width: int) -> int:
    """The column of the B-th largest allowed score; of the smallest one if there are fewer than B."""
    ranked = sorted(allowed, key=lambda v: -row[v])
    return ranked[min(beam_width, len(ranked)) - 1]


def log_sigmoid(u: float) -> float:
    return -math.log1p(math.exp(-u)) if u >= 0 else u - math.log1p(math.exp(u))


def sigmoid(u: float) -> float:
    return math.exp(log_sigmoid(u))


def nll_rows(
    logits: list[Row], targets: list[int], allowed: list[list[int]], tau: float = 1.0
) -> tuple[list[float], list[Row]]:
    """-log p of each target, and its gradient (p - one-hot) / tau."""
    values, gradients = [], []
    for row, target, columns in zip(logits, targets, allowed, strict=True):
        p = softmax(row, columns, tau)
        values.append(-log_prob(row, columns, tau, target))
        gradient = [0.0] * len(row)
        for v in columns:
            gradient[v] = (p[v] - (v == target)) / tau
        gradients.append(gradient)
    return values, gradients


def mean_loss(
    logits: list[Row], targets: list[int], allowed: list[list[int]], tau: float = 1.0
) -> tuple[float, list[Row]]:
    """SFT (all columns allowed) and MSL: the mean over rows, and its gradient."""
    values, gradients = nll_rows(logits, targets, allowed, tau)
    n = len(values)
    return sum(values) / n, [[g / n for g in row] for row in gradients]


def margins(
    logits: list[Row], targets: list[int], allowed: list[list[int]], beam_width: int, tau: float = 1.0
) -> list[float]:
    out = []
    for row, target, columns in zip(logits, targets, allowed, strict=True):
        b = threshold_column(row, columns, beam_width)
        out.append((row[b] - row[target]) / tau)  # the softmax's divisor cancels
    return out


def regularizer(margin: float, xi: float, form: str) -> tuple[float, float]:
    """A token's regulariser, and its derivative with respect to the margin."""
    if form == "equation":
        return log_sigmoid(margin / xi), sigmoid(-margin / xi) / xi
    return -log_sigmoid(-margin / xi), sigmoid(margin / xi) / xi


def bear(
    logits: list[Row],
    targets: list[int],
    allowed: list[list[int]],
    *,
    lam: float,
    xi: float,
    beam_width: int,
    form: str,
    tau: float = 1.0,
) -> tuple[float, list[Row]]:
    """BEAR's loss and gradient; the threshold is a constant, so d margin = d(-log p of the target)."""
    values, gradients = nll_rows(logits, targets, allowed, tau)
    margin = margins(logits, targets, allowed, beam_width, tau)
    n = len(values)
    if form == "released":
        weights = [1 + lam * sigmoid(-m / xi) for m in margin]
        divisor = sum(w for w, columns in zip(weights, allowed, strict=True) if len(columns) > 1) + 1e-8
        loss = sum(w * v for w, v in zip(weights, values, strict=True)) / divisor
        return loss, [[w * g / divisor for g in row] for w, row in zip(weights, gradients, strict=True)]
    loss, out = 0.0, []
    for value, gradient, m in zip(values, gradients, margin, strict=True):
        penalty, slope = regularizer(m, xi, form)
        loss += (value + lam * penalty) / n
        out.append([g * (1 + lam * slope) / n for g in gradient])
    return loss, out


def adapt_temperature(
    tau: float, first_logits: list[Row], first_targets: list[int], *, eta: float = 0.25, rate: float = 0.05
) -> float:
    """MSL's ATS over the first-token rows of a step; each row has the logits of the valid first tokens
    only."""
    positive = [row[target] for row, target in zip(first_logits, first_targets, strict=True)]
    pool = [x for row in first_logits for x in row]
    mean_positive, mean = sum(positive) / len(positive), sum(pool) / len(pool)
    variance = sum((x - mean) ** 2 for x in pool) / (len(pool) - 1)
    gap, c = mean_positive - mean, math.log(eta * len(first_logits[0]))
    estimate = (gap + math.sqrt(max(0.0, gap * gap - 2 * c * variance))) / (2 * c)
    return (1 - rate) * tau + rate * min(5.0, max(1.5, estimate))
