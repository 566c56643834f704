"""One given title for each user: its log-probability token by token, and its true rank in the catalogue.

`score_titles` says how a model sees the title's way through the trie, and where condition (3.2) of BEAR is
violated: a token that is not among the B most probable valid ones is dropped by any beam search of width B
whose prefixes are not far apart. `target_rank` counts the titles that are more probable, by branch and bound
with the title's own score as the bar (`bound.py`), so that it needs no score of every title.

Axis letters: U users, T prompt tokens, S steps (a title's tokens and its end), N rows, K continuations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.bound import BranchAndBound, check_search, room_needed
from bearray.decoding.drive import map_batches
from bearray.decoding.prefixes import PrefixTree
from bearray.decoding.scoring import Scorer
from bearray.decoding.title_filter import TitleFilter
from bearray.errors import DataError
from bearray.trie import TokenTrie

Record = TypeVar("Record", "TitleScores", "TargetRanks")

_TABLE = 2**24
"""Log-probabilities [N, K] that are held at a time."""
_NOISE = {torch.bfloat16: 4e-3, torch.float16: 5e-4}
_NOISE_FLOAT32 = 4e-6
"""How far apart two computations of one score lie, relative to 1 + |score|."""


@dataclass(frozen=True, eq=False)
class TitleScores:
    """How probable one title is for each of U users, step by step; on the CPU.

    Steps are the title's tokens and its end. Past a title's own steps: log-probability and beta 0, rank and
    valid 0.
    """

    log_prob: Tensor
    """[U] float32, of the whole title."""
    steps: Tensor
    """[U] long, tokens of the title and one for its end."""
    step_log_prob: Tensor
    """[U, S] float32, of each token given those before it."""
    rank: Tensor
    """[U, S] long, valid continuations of the same node that are more probable."""
    valid: Tensor
    """[U, S] long, number of valid continuations."""
    beta: Tensor
    """[U, S] float32, log-probability of the B-th most probable valid continuation; of the least probable
    one where there are fewer than B (METHODS 5: nothing can be pruned there)."""

    @property
    def margin(self) -> Tensor:
        """[U, S] log beta - log p(token), the delta of condition (3.2)."""
        return self.beta - self.step_log_prob

    @property
    def violated(self) -> Tensor:
        """[U, S] bool: the token is not among the B most probable valid ones, against condition (3.2)."""
        return self.margin > 0


@dataclass(frozen=True, eq=False)
class TargetRanks:
    """Where one title of each of U users stands among all titles; on the CPU."""

    ranks: Tensor
    """[U] long, titles of higher log-probability; a lower bound where it is not proven."""
    proven: Tensor
    """[U] bool."""
    expanded: Tensor
    """[U] long, prefixes whose continuations were scored, the prompt included."""
    log_prob: Tensor
    """[U] float32, of the title itself."""


def score_titles(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    titles: Tensor | Sequence[int],
    *,
    beam_width: int = 10,
    normalize: Normalize = "trie",
    allowed: TitleFilter | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
) -> TitleScores:
    """The log-probability of one title for each user, and how its tokens stand among the valid ones.

    Args:
        model: a `transformers` causal LM, plain or with a PEFT adapter; put in evaluation mode for the call.
        input_ids: [U, T] prompts, left-padded, on any device.
        attention_mask: [U, T] 1 for a prompt's tokens, 0 for the padding before them.
        trie: the catalogue's titles as tokens.
        titles: [U] index of each user's title in the trie's sequences.
        beam_width: B of `TitleScores.beta`.
        normalize: "trie" or "full", as in `constrained_beam_search`.
        allowed: which titles each user may be given, the asked one among them; the others' tokens are then
            not valid ones (but `TitleScores.valid` counts them). None: all.
        batch_size: users computed at a time; None: as many as memory holds.
        eos_token_id: the end of a title; None takes the model's own.

    Raises:
        ConfigError: a beam width or batch size below 1, an unknown normaliser.
        DataError: a title that the trie does not hold, or not one a user; prompts as in
            `constrained_beam_search`.
        ModelError: a model that cannot be decoded, or NaN logits.
    """
    check_search(beam_width=beam_width)
    last = last_nodes(trie, titles, len(input_ids))

    def work(scorer: Scorer, ids: Tensor, lengths: Tensor, rows: Tensor) -> TitleScores:
        tree = PrefixTree(scorer.network, ids, lengths, scorer.trie.max_depth, reserve=scorer.trie.max_depth)
        return _score_paths(scorer, tree, last.to(ids.device)[rows], beam_width)

    parts, order = map_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        work,
        normalize=normalize,
        answer_tokens=trie.max_depth,
        titles=allowed,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
    )
    return _joined(TitleScores, parts, order)


def target_rank(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    titles: Tensor | Sequence[int],
    *,
    normalize: Normalize = "trie",
    node_budget: int | None = None,
    expand_width: int = 64,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TargetRanks:
    """The number of titles that are more probable than a given one, for each user.

    Every prefix that is more probable than the title is expanded, whatever the order, so a wide
    `expand_width` costs nothing but memory; going deep first, a budget that is too small for the proof still
    finds many of the titles. Titles whose score is that of the given one but for rounding
    (`score_noise`) are ties and do not count; nor does the title itself.

    Args:
        model, input_ids, attention_mask, trie, titles, normalize, batch_size, eos_token_id: as in
            `score_titles`.
        node_budget: prefixes expanded at most for one user (the prompt counts as one); None: until proven.
            An improbable title, or normaliser "full" with a model that finds the titles' later tokens
            unlikely, may need much of the catalogue. What the budget cuts off makes the rank a lower bound.
        expand_width: prefixes of one user expanded in one forward pass.
        progress: called with (users done, users in all) after each batch.

    Raises:
        ConfigError: a number below 1, an unknown normaliser.
        DataError, ModelError: as `score_titles`.
    """
    check_search(node_budget=node_budget, expand_width=expand_width)
    last = last_nodes(trie, titles, len(input_ids))

    def work(scorer: Scorer, ids: Tensor, lengths: Tensor, rows: Tensor) -> TargetRanks:
        target = last.to(ids.device)[rows]
        return _Count(scorer, ids, lengths, target, node_budget=node_budget, expand_width=expand_width).run()

    parts, order = map_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        work,
        normalize=normalize,
        answer_tokens=room_needed(trie, node_budget),
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )
    return _joined(TargetRanks, parts, order)


def score_noise(log_prob: Tensor, dtype: torch.dtype) -> Tensor:
    """How much a title's log-probability may change when it is computed again in a batch of another shape.

    Measured, not derived (tests/decoding/test_target.py): in float32 sums are taken in another order, in
    bfloat16 logits of some tens are also rounded to a few hundredths.

    Args:
        log_prob: scores, any shape. dtype: of the model's activations.
    """
    return _NOISE.get(dtype, _NOISE_FLOAT32) * (1 + log_prob.abs())


class _Count(BranchAndBound):
    """The bar is the target's own score; finished titles above it are counted, not kept."""

    results = ("expanded", "proven", "above", "target", "own", "limit")

    def __init__(
        self,
        scorer: Scorer,
        ids: Tensor,
        lengths: Tensor,
        target: Tensor,
        *,
        node_budget: int | None,
        expand_width: int,
    ) -> None:
        super().__init__(scorer, ids, lengths, node_budget=node_budget, expand_width=expand_width)
        self.target = target
        self.own = _score_paths(scorer, self.tree, target, 1).log_prob.to(target.device)
        self.tree.forget()
        self.limit = self.own + score_noise(self.own, scorer.network.dtype)
        self.above = torch.zeros_like(target)

    def bar(self) -> Tensor:
        return self.limit

    def urgency(self, score: Tensor, node: Tensor) -> Tensor:
        """Deepest first: all have to be expanded in any order, and this one finds titles to count before a
        budget is spent, and keeps few prefixes open. Of equal depth the most probable."""
        fraction = 1 / (1 - score.clamp(max=0))  # in (0, 1], rising with the score; 0 for -inf
        return torch.where(score > -torch.inf, self.trie.depth[node] + fraction, -torch.inf)

    def finish(self, score: Tensor, node: Tensor) -> None:
        better = (score > self.limit[:, None]) & (node != self.target[:, None])
        self.above = self.above + better.sum(1)

    def run(self) -> TargetRanks:
        found = {name: tensor.cpu() for name, tensor in self.search().items()}
        return TargetRanks(found["above"], found["proven"], found["expanded"], found["own"])


def _score_paths(scorer: Scorer, tree: PrefixTree, last: Tensor, beam_width: int) -> TitleScores:
    """Score the title that ends at node `last` [U] of each user of a batch whose tree is still bare."""
    trie, full = scorer.trie, scorer.normalize == "full"
    users = torch.arange(len(last), device=last.device)
    path, steps = title_paths(trie, last)
    column = torch.arange(path.shape[1], device=last.device)
    inside = column < steps[:, None]
    following = torch.where(column == steps[:, None] - 1, -1, path.roll(-1, 1))
    valid = torch.where(inside, trie.child_count(path), 0)
    # "trie": a token without an alternative has log-probability 0, whatever the model says.
    asked = inside if full else valid > 1
    log_prob = torch.zeros(path.shape, device=last.device)
    rank, beta = torch.zeros_like(path), torch.zeros_like(log_prob)

    def score(hidden: Tensor, user: Tensor, step: Tensor, *, same_node: bool = False) -> None:
        rows = max(1, _TABLE // int(valid.max()))
        for h, u, s in zip(hidden.split(rows), user.split(rows), step.split(rows), strict=True):
            log_probs, child = scorer(h, path[u, s], u, same_node=same_node)
            own = log_probs[child == following[u, s][:, None]]  # [N]: one continuation of each row
            log_prob[u, s] = own
            rank[u, s] = (log_probs > own[:, None]).sum(1)
            best = log_probs.topk(min(beam_width, log_probs.shape[1]), dim=1).values
            living = (best > -torch.inf).sum(1, keepdim=True)  # fewer than `valid` where titles are denied
            beta[u, s] = best.gather(1, (living - 1).clamp(min=0))[:, 0]

    root = users[asked[:, 0]]
    if len(root):
        score(tree.root_hidden[root], root, torch.zeros_like(root), same_node=True)
    deepest = torch.where(asked, column, 0).amax(1)
    if bool((deepest > 0).any()):
        end = path[users, deepest][:, None]
        new = tree.extend(trie, end, torch.zeros_like(end), torch.full_like(end, -1), deepest[:, None] > 0)
        here = asked[new.user, new.step + 1]
        score(new.hidden[here], new.user[here], new.step[here] + 1)
    tensors = (log_prob.sum(1), steps, log_prob, rank, valid, beta)
    return TitleScores(*(tensor.cpu() for tensor in tensors))


def title_paths(trie: TokenTrie, last: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes before each step of the titles that end at nodes `last` [U].

    Returns:
        (path [U, S] long: the root, then the node after each token; 0 past a title's steps. steps [U] long:
        tokens and one for the end.)
    """
    depth = trie.depth[last].long()
    path = torch.zeros(len(last), int(depth.max()) + 1, dtype=torch.long, device=last.device)
    node = last
    for _ in range(path.shape[1] - 1):
        path.scatter_(1, trie.depth[node].long()[:, None], node[:, None])
        node = trie.parent[node].long()
    path[:, 0] = 0
    return path, depth + 1


def last_nodes(trie: TokenTrie, titles: Tensor | Sequence[int], users: int) -> Tensor:
    """The node at which each title ends, [U] on the trie's device.

    Raises:
        DataError: not one title a user, or one that the trie does not hold.
    """
    wanted = torch.as_tensor(titles, dtype=torch.long, device=trie.device)
    if wanted.shape != (users,):
        raise DataError(
            f"titles has shape {list(wanted.shape)}; it needs one title for each of {users} users"
        )
    unknown = (wanted < 0) | (wanted >= trie.num_sequences)
    if bool(unknown.any()):
        row = int(unknown.int().argmax())
        raise DataError(
            f"titles[{row}] is {int(wanted[row])}, but the trie's titles are 0 to {trie.num_sequences - 1}"
        )
    ends = (trie.terminal >= 0).nonzero()[:, 0]
    node_of = torch.full((trie.num_sequences,), -1, dtype=torch.long, device=trie.device)
    node_of[trie.terminal[ends].long()] = ends
    last = node_of[wanted]
    if bool((last < 0).any()):
        row = int((last < 0).int().argmax())
        raise DataError(
            f"titles[{row}] is {int(wanted[row])}, whose tokens an earlier title has, too; name that one"
        )
    return last


def _joined(kind: type[Record], parts: Sequence[Record], order: Tensor) -> Record:
    """Put batches back together, each tensor as wide as its widest part."""
    back = torch.argsort(order.cpu())

    def join(name: str) -> Tensor:
        tensors = [getattr(part, name) for part in parts]
        if tensors[0].ndim > 1:
            width = max(tensor.shape[1] for tensor in tensors)
            tensors = [nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors]
        return torch.cat(tensors)[back]

    return kind(**{f.name: join(f.name) for f in fields(kind)})
