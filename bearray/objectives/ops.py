"""What the token losses share: a stable softmax over a subset, the beam threshold, argument checks.

A token that cannot come next has logit and log-probability `-inf`; no separate mask is carried beyond that.
Axes: N answer tokens, V vocabulary, K columns (V, or the valid next tokens of a trie node).
"""

from __future__ import annotations

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor

from bearray.errors import ConfigError

_WIDE, _CHUNKS = 16_384, 256
"""Columns from which on `largest` goes by chunks, and how many."""


def as_float(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 if it is already: half precision loses the tail of a softmax."""
    return x if x.dtype == torch.float64 else x.float()


def mask_out(x: Tensor, valid: Tensor | None) -> Tensor:
    """`x` in float32 or float64 with `-inf` where `valid` is False; the gradient there is exactly 0."""
    x = as_float(x)
    return x if valid is None else x.masked_fill(~valid, -math.inf)


def log_softmax(logits: Tensor, tau: float = 1.0) -> Tensor:
    """`log softmax(logits / tau)` [N,K] over the last axis; `-inf` logits stay `-inf` and get gradient 0."""
    return F.log_softmax(logits if tau == 1.0 else logits / tau, dim=-1)


def pick(x: Tensor, column: Tensor) -> Tensor:
    """`x[n, column[n]]` for every row n: [N,K], [N] -> [N]."""
    return x.gather(1, column[:, None]).squeeze(1)


def beam_threshold(scores: Tensor, beam_width: int) -> Tensor:
    """The `beam_width`-th largest finite score of each row: [N,K] -> [N], detached.

    This is log beta of BEAR (arXiv 2601.22925, section 4.2) where `scores` are log-probabilities. A row
    with fewer than `beam_width` finite scores gives the smallest of them, as the published code does:
    nothing can be pruned there.
    """
    top = largest(scores.detach(), min(beam_width, scores.shape[1]))
    last_finite = (top > -math.inf).sum(dim=1).sub_(1).clamp_(min=0)
    return pick(top, last_finite)


def largest(x: Tensor, k: int) -> Tensor:
    """The k largest values of each row, largest first: [N,V] -> [N,k].

    Wide rows are looked through in two steps: the k largest values lie in the k chunks with the largest
    maxima. One pass for the maxima is cheaper than `topk` over a vocabulary of 128,256 (2.2 times on a CPU).
    """
    chunk = x.shape[1] // _CHUNKS
    if x.shape[1] < _WIDE or k * chunk > x.shape[1] // 4:
        return x.topk(k, dim=1).values
    chunks = x[:, : _CHUNKS * chunk].unflatten(1, (_CHUNKS, chunk))
    best = chunks.amax(dim=2).topk(k, dim=1).indices
    among = chunks.gather(1, best[:, :, None].expand(-1, -1, chunk)).flatten(1)
    return torch.cat([among, x[:, _CHUNKS * chunk :]], dim=1).topk(k, dim=1).values


def check_rows(scores: Tensor, targets: Tensor, valid: Tensor | None, name: str = "logits") -> None:
    """Check the arguments of a dense loss.

    Raises:
        ValueError: no rows, shapes or types that do not fit, or a target that is out of range or not valid.
    """
    if scores.dim() != 2 or not scores.is_floating_point():
        raise ValueError(f"{name} must be [N,V] of a float type; got {tuple(scores.shape)}, {scores.dtype}")
    rows, columns = scores.shape
    if targets.shape != (rows,) or targets.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"targets must be [{rows}] token ids, one for each row of {name}; "
            f"got {tuple(targets.shape)}, {targets.dtype}"
        )
    if rows == 0 or columns == 0:
        raise ValueError(f"{name} is {tuple(scores.shape)}; a mean needs at least one row and one token")
    if not bool(((targets >= 0) & (targets < columns)).all()):
        raise ValueError(
            f"targets must be in 0..{columns - 1}; got {int(targets.min())}..{int(targets.max())}"
        )
    if valid is None:
        return
    if valid.shape != scores.shape or valid.dtype != torch.bool:
        raise ValueError(
            f"valid must be bool {tuple(scores.shape)}, the shape of {name}; "
            f"got {valid.dtype} {tuple(valid.shape)}"
        )
    allowed = pick(valid, targets.long())
    if not bool(allowed.all()):
        row = int((~allowed).nonzero()[0])
        raise ValueError(f"the target of row {row} (token {int(targets[row])}) is not a valid token there")


def check_positive(name: str, value: float) -> float:
    """`value` if it is a finite number above 0, else `ConfigError`."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value!r}; it must be a number above 0")
    return float(value)


def check_weight(name: str, value: float) -> float:
    """`value` if it is a finite number of at least 0, else `ConfigError`."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} is {value!r}; it must be a number of at least 0")
    return float(value)


def check_beam_width(value: int) -> int:
    """`value` if it is a whole number of at least 1, else `ConfigError`."""
    try:
        width = operator.index(value)
    except TypeError:
        width = 0
    if width < 1:
        raise ConfigError(f"beam_width is {value!r}; it must be a whole number of at least 1")
    return width
