"""Prompts and the growing tree of answer prefixes behind each of them, run through the model.

Axis letters: U users (rows), T prompt tokens, Q tokens fed at once, S slots, L depth of the trie, D hidden
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bearray.decoding.cache import SlotCache
from bearray.decoding.network import Network
from bearray.errors import DataError
from bearray.trie import TokenTrie

_WORTH_SHARING = 8
"""Tokens that all prompts of a batch must begin with for a forward pass of their own."""
_PART_TOKENS = (512, 16384)
"""Prompt tokens computed at a time, on CPU and on GPU: enough to keep either busy."""


@dataclass(frozen=True, eq=False)
class Extension:
    """M trie nodes that were computed together: for some of a batch's prefixes [U, P] the chain that leads
    to a node."""

    user: Tensor
    """[M] row of each node's prefix."""
    prefix: Tensor
    """[M] its column."""
    step: Tensor
    """[M] place in its chain, from 0."""
    node: Tensor
    """[M] the trie node."""
    last: Tensor
    """[M] bool, end of its chain."""
    hidden: Tensor
    """[M, D] hidden state."""
    slot: Tensor
    """[U, P] slot of each prefix's last computed token, now."""


class PrefixTree:
    """The computed part of U users' answer trees.

    A prompt is computed once. Each token fed after it takes a slot of its user's row, in order; a token sees
    its prompt and its own ancestors among the slots, through a 4-D mask. Nothing is copied when a prefix
    forks, nothing is moved when one is dropped.

    Args:
        network: the model.
        ids: [U, T] prompts, right-padded.
        lengths: [U] their lengths, at least 1.
        max_depth: longest answer in tokens.
        reserve: slots to make room for at first.
    """

    root_hidden: Tensor
    """[U, D] hidden state of each prompt's last token."""

    def __init__(
        self, network: Network, ids: Tensor, lengths: Tensor, max_depth: int, *, reserve: int = 64
    ) -> None:
        self._set_up(network, lengths, ids.shape[1], max_depth, reserve)
        self.root_hidden = self._read_prompts(ids)

    @classmethod
    def computed(
        cls,
        network: Network,
        layers: Sequence[tuple[Tensor, Tensor]],
        lengths: Tensor,
        root_hidden: Tensor,
        max_depth: int,
        *,
        reserve: int = 64,
    ) -> PrefixTree:
        """Prompts that were computed elsewhere, say by the training pass.

        Args:
            layers: keys and values of each layer, [U, heads, T, head size]; what stands behind a prompt's end
                is not looked at.
            lengths: [U] tokens of each prompt.
            root_hidden: [U, D] hidden state of each prompt's last token.
        """
        tree = cls.__new__(cls)
        tree._set_up(network, lengths, layers[0][0].shape[2], max_depth, reserve)
        tree._cache.fill(layers)
        tree.root_hidden = root_hidden
        tree.passes = 0
        return tree

    def _set_up(self, network: Network, lengths: Tensor, width: int, max_depth: int, reserve: int) -> None:
        self.network = network
        self.lengths = lengths
        self.passes = 1
        self.used = 0
        self.max_depth = max_depth
        users, device = len(lengths), lengths.device
        self._width = width
        self._cache = SlotCache(users, width + reserve)
        self._prompt = torch.arange(width, device=device) < lengths[:, None]
        # ancestors[u, s, d] = slot of the ancestor at depth d + 1 of slot s (itself included), else -1.
        self._ancestors = torch.full((users, reserve, max_depth), -1, dtype=torch.long, device=device)
        self._depths = torch.zeros(users, reserve, dtype=torch.long, device=device)

    def _read_prompts(self, ids: Tensor) -> Tensor:
        """Compute the prompts; the hidden state [U, D] of each one's last token.

        Prompts made by one template begin alike: what all users share is computed once, for one row. The rest
        is computed in parts of users that lie side by side, each no wider than its own longest prompt: users
        come ordered by length, so little is padding, and activations never fill more than one part. With the
        padding on the right nothing but the order of tokens needs a mask: earlier tokens are all real.
        """
        users, width = ids.shape
        network, cache = self.network, self._cache
        positions = torch.arange(width, device=ids.device)
        shared = self._shared_start(ids)
        if shared:
            cache.write_to(slice(0, 1), 0)
            network.run(ids[:1, :shared], positions[None, :shared], None, cache)
            cache.share_first_row()
            self.passes += 1
        part = max(1, _PART_TOKENS[ids.device.type == "cuda"] // max(1, width - shared))
        last = []
        for begin in range(0, users, part):
            rows = slice(begin, min(begin + part, users))
            lengths = self.lengths[rows]
            longest = int(lengths.max())
            cache.write_to(rows, shared)
            own = ids[rows, shared:longest]
            place = positions[shared:longest].expand(len(lengths), -1)
            if not shared:
                hidden = network.run(own, place, None, cache)
                last.append(hidden[torch.arange(len(lengths), device=ids.device), lengths - 1])
                continue
            slots = torch.arange(-(-longest // cache.align) * cache.align, device=ids.device)
            distance = (place[:1, :, None] - slots).expand(len(lengths), -1, -1)
            mask = network.mask(distance >= 0, distance, network.dtype)
            hidden = network.run_some(own, place, mask, cache, place < lengths[:, None])
            last.append(hidden[(lengths - shared).cumsum(0) - 1])
        cache.write_to(slice(None), width)
        return torch.cat(last)

    def _shared_start(self, ids: Tensor) -> int:
        """How many tokens all prompts begin with, where a pass of their own pays, else 0."""
        different = (ids != ids[:1]).any(0).int()
        shared = int(torch.argmax(different)) if bool(different.any()) else ids.shape[1]
        shared = min(shared, int(self.lengths.min()) - 1)
        return shared if len(ids) > 1 and shared >= _WORTH_SHARING else 0

    def feed(self, tokens: Tensor, depth: Tensor, parent: Tensor, block: Tensor) -> Tensor:
        """Compute new tokens; the one in column q takes slot `used + q` of its row.

        Args:
            tokens: [U, Q] token ids.
            depth: [U, Q] their depth in the trie (a title's first token: 1).
            parent: [U, Q] slot of the token before the block (-1: the prompt).
            block: [U, Q] tokens with the same number in a row are one chain, in order; -1 marks padding.

        Returns:
            [M, D] hidden states of the tokens that are not padding, row by row.
        """
        users, columns = tokens.shape
        self._make_room(self.used + columns)
        ancestors = self._lineage(depth, parent, block)
        self._ancestors[:, self.used : self.used + columns] = ancestors
        self._depths[:, self.used : self.used + columns] = depth
        self.used += columns

        shown = -(-(self._width + self.used) // self._cache.align) * self._cache.align
        slots = shown - self._width
        seen = torch.zeros(users, columns, slots + 1, dtype=torch.bool, device=tokens.device)
        seen.scatter_(2, torch.where(ancestors < 0, slots, ancestors), True)
        visible = torch.cat([self._prompt[:, None].expand(-1, columns, -1), seen[..., :slots]], dim=2)
        positions = self.lengths[:, None] + depth - 1
        distance = None
        if self.network.window is not None:
            prompt = torch.arange(self._width, device=tokens.device).expand(users, -1)
            later = (
                self.lengths[:, None]
                + torch.nn.functional.pad(self._depths[:, : self.used], (0, slots - self.used))
                - 1
            )
            distance = positions[:, :, None] - torch.cat([prompt, later], dim=1)[:, None]
        mask = self.network.mask(visible, distance, self.network.dtype)
        self.passes += 1
        return self.network.run_some(tokens, positions, mask, self._cache, block >= 0)

    def extend(
        self, trie: TokenTrie, end: Tensor, computed: Tensor, slot: Tensor, chosen: Tensor
    ) -> Extension:
        """Compute, for each chosen prefix, all nodes on the way from what is computed to a node.

        Args:
            end: [U, P] the last node to compute.
            computed: [U, P] depth of the ancestor that is computed already, less than the end's own depth.
            slot: [U, P] that ancestor's slot (-1: the prompt).
            chosen: [U, P] bool; at least one.
        """
        count = torch.where(chosen, trie.depth[end].long() - computed, 0)
        longest = int(count.max())
        nodes, node = [], end
        for _ in range(longest):
            nodes.append(node)
            node = trie.parent[node].long()
        chain = torch.stack(nodes[::-1], dim=2)  # [U, P, longest], each chain at the right end of its row
        place = torch.arange(longest, device=end.device) - (longest - count[..., None])
        user, prefix, at = (place >= 0).nonzero(as_tuple=True)
        step = place[user, prefix, at]
        first = count.cumsum(1) - count  # chains of a user side by side
        column = first[user, prefix] + step
        fed = chain[user, prefix, at]
        shape = (len(end), int(count.sum(1).max()))

        def spread(values: Tensor, fill: int) -> Tensor:
            return torch.full(shape, fill, dtype=torch.long, device=end.device).index_put_(
                (user, column), values
            )

        hidden = self.feed(
            tokens=spread(trie.child_token[fed - 1].long(), 0),
            depth=spread(trie.depth[fed].long(), 1),
            parent=spread(slot[user, prefix], -1),
            block=spread(prefix, -1),
        )
        return Extension(
            user=user,
            prefix=prefix,
            step=step,
            node=fed,
            last=step == count[user, prefix] - 1,
            hidden=hidden,
            slot=torch.where(chosen, self.used - shape[1] + first + count - 1, slot),
        )

    def _lineage(self, depth: Tensor, parent: Tensor, block: Tensor) -> Tensor:
        """[U, Q, L] slots of each new token's ancestors and of itself, by depth."""
        users, columns = depth.shape
        inherited = self._ancestors.gather(1, parent.clamp(min=0)[..., None].expand(-1, -1, self.max_depth))
        lineage = torch.where((parent < 0)[..., None], -1, inherited)
        column = torch.arange(columns, device=depth.device)
        chain = (
            (block[:, :, None] == block[:, None, :]) & (column <= column[:, None]) & (block >= 0)[:, :, None]
        )
        # One spare place takes the writes of the tokens that are not in the chain.
        place = torch.where(chain, depth[:, None, :] - 1, self.max_depth)
        slot = (self.used + column).expand(users, columns, columns)
        spare = torch.nn.functional.pad(lineage, (0, 1))
        return spare.scatter_(2, place, slot)[..., : self.max_depth]

    def _make_room(self, slots: int) -> None:
        have = self._depths.shape[1]
        if slots > have:
            more = max(slots, 2 * have) - have
            self._ancestors = torch.nn.functional.pad(self._ancestors, (0, 0, 0, more), value=-1)
            self._depths = torch.nn.functional.pad(self._depths, (0, more))

    def forget(self) -> None:
        """Free all slots; of what was computed only the prompts stay."""
        self.used = 0
        self._cache.write_to(slice(None), self._width)

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all users but these [U'] (indices)."""
        self._cache.keep_rows(rows)
        for name in ("lengths", "root_hidden", "_prompt", "_ancestors", "_depths"):
            setattr(self, name, getattr(self, name)[rows])


def right_padded(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn left-padded prompts [U, T] into right-padded ones and their lengths [U].

    Raises:
        DataError: shapes that differ, an empty prompt, or a mask that is not zeros followed by ones.
    """
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
        raise DataError(
            f"input_ids is {list(input_ids.shape)} and attention_mask {list(attention_mask.shape)}; "
            "both must be [users, tokens]"
        )
    mask = attention_mask.bool()
    lengths = mask.sum(1)
    width = input_ids.shape[1]
    column = torch.arange(width, device=input_ids.device)
    wrong = (mask != (column >= width - lengths[:, None])).any(1) | (lengths == 0)
    if bool(wrong.any()):
        row = int(wrong.int().argmax())
        what = "is all padding" if int(lengths[row]) == 0 else "is not zeros followed by ones (left padding)"
        raise DataError(f"row {row} of attention_mask {what}")
    # Columns past the end repeat the last token, so that padding is an ordinary token too.
    source = torch.minimum(column + width - lengths[:, None], torch.tensor(width - 1, device=column.device))
    return input_ids.gather(1, source), lengths
