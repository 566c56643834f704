"""The catalogue as a flat prefix tree: which tokens may follow a prefix, answered by array look-ups.

Nodes are numbered breadth first and the children of a node lie side by side, sorted by token (CSR). The root
is node 0 and edge e leads to node e + 1, so two arrays, `child_start` and `child_token`, hold the whole
tree: the children of node n are the edges `child_start[n]:child_start[n + 1]`. Axis letters: N nodes asked
about, K candidate tokens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from bearray.array_files import read_arrays, require_int32, write_arrays
from bearray.errors import DataError
from bearray.ragged import TokenLists
from bearray.title_order import TitleOrder, title_order
from bearray.trie_checks import trie_fault

_ARRAYS = ("child_start", "child_token", "terminal", "parent", "depth", "forced_end")
_KIND, _VERSION = "token trie", 1


@dataclass(frozen=True, eq=False, repr=False)
class TokenTrie:
    """A prefix tree over token sequences, in int32 tensors on one device. Build it with `from_sequences`.

    The end of a sequence is a mark on its last node (`terminal`), not a token: whoever decodes puts the
    model's own end-of-sequence token there. A sequence may be a prefix of another one; its last node is then
    both terminal and inner.
    """

    child_start: Tensor
    """[nodes + 1] first edge of each node."""
    child_token: Tensor
    """[edges] token on each edge; edge e leads to node e + 1."""
    terminal: Tensor
    """[nodes] index of the sequence that ends at the node, else -1 (of equal sequences: the first)."""
    parent: Tensor
    """[nodes] parent node; the root's is 0."""
    depth: Tensor
    """[nodes] number of tokens from the root."""
    forced_end: Tensor
    """[nodes] where the node's forced stretch ends: the first node, itself or below, that branches or is a
    leaf."""
    num_sequences: int
    """Number of sequences that the trie was built from, equal ones counted again."""
    max_depth: int
    """Length of the longest sequence."""

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[Sequence[int]], *, device: torch.device | str = "cpu"
    ) -> TokenTrie:
        """Build the trie level by level with array operations (a million sequences of 12 tokens: seconds).

        Args:
            sequences: token ids of each sequence, without end-of-sequence; equal sequences share one path.
            device: where the tensors are put.

        Raises:
            DataError: (a ValueError) no sequences, an empty sequence, or a token that is negative or does not
                fit in 31 bits; the message has the index.
        """
        lists = TokenLists.of(sequences)
        if len(lists) == 0:
            raise DataError("the trie was given no sequences; it needs at least one")
        if not lists.lengths.all():
            raise DataError(
                f"sequence {int(np.argmin(lists.lengths))} has no tokens; every sequence needs at least one"
            )
        if lists.tokens.min() < 0 or lists.tokens.max() >= 2**31:
            place = int(np.argmax((lists.tokens < 0) | (lists.tokens >= 2**31)))
            where = int(np.searchsorted(lists.starts, place, side="right")) - 1
            raise DataError(
                f"sequence {where} holds token {lists.tokens[place]}; token ids are 0 to {2**31 - 1}"
            )
        return cls._build(lists).to(device)

    @classmethod
    def _build(cls, lists: TokenLists) -> TokenTrie:
        tokens, starts, lengths = lists.tokens, lists.starts[:-1], lists.lengths
        radix = int(tokens.max()) + 1
        max_depth = int(lengths.max())
        node = np.zeros(len(lengths), dtype=np.int64)  # where each sequence has come to
        alive = np.arange(len(lengths))
        level_parent, level_token = [np.zeros(1, dtype=np.int32)], []
        level_start = [0, 1]  # first node of each level
        for level in range(max_depth):
            # (parent, token) as one integer: sorting it gives breadth-first numbers with children sorted by
            # token.
            key = node[alive] * radix + tokens[starts[alive] + level]
            unique, inverse = np.unique(key, return_inverse=True)
            level_parent.append((unique // radix).astype(np.int32))
            level_token.append((unique % radix).astype(np.int32))
            node[alive] = level_start[-1] + inverse
            level_start.append(level_start[-1] + len(unique))
            alive = alive[lengths[alive] > level + 1]

        nodes = level_start[-1]
        parent = np.concatenate(level_parent)
        count = np.bincount(parent[1:], minlength=nodes).astype(np.int32)
        child_start = np.zeros(nodes + 1, dtype=np.int32)
        np.cumsum(count, out=child_start[1:])
        terminal = np.full(nodes, -1, dtype=np.int32)
        terminal[node[::-1]] = np.arange(len(node))[
            ::-1
        ]  # backwards: of equal ones the first is written last
        forced_end = np.arange(nodes, dtype=np.int32)
        for level in range(max_depth - 1, -1, -1):
            here = np.arange(level_start[level], level_start[level + 1])
            here = here[(count[here] == 1) & (terminal[here] < 0)]
            forced_end[here] = forced_end[child_start[here] + 1]
        return cls(
            child_start=torch.from_numpy(child_start),
            child_token=torch.from_numpy(np.concatenate(level_token)),
            terminal=torch.from_numpy(terminal),
            parent=torch.from_numpy(parent),
            depth=torch.from_numpy(np.repeat(np.arange(max_depth + 1, dtype=np.int32), np.diff(level_start))),
            forced_end=torch.from_numpy(forced_end),
            num_sequences=len(lengths),
            max_depth=max_depth,
        )

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name: what `from_arrays` takes."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def facts(self) -> dict[str, int]:
        """The numbers by name: what `from_arrays` takes."""
        return {"num_sequences": self.num_sequences, "max_depth": self.max_depth}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Tensor], facts: Mapping[str, int], source: str | os.PathLike[str]
    ) -> TokenTrie:
        """Put a trie together from `arrays()` and `facts()`; further entries are left alone.

        Raises:
            DataError: an entry is missing, or arrays of sizes that make no trie; the message names `source`.
        """
        for name in ("num_sequences", "max_depth"):
            if not isinstance(facts.get(name), int) or facts[name] < 1:
                raise DataError(f"{source}: {name} is {facts.get(name)!r}; it must be a number above 0")
        nodes = len(arrays.get("parent", ()))
        sizes = {**dict.fromkeys(_ARRAYS, nodes), "child_start": nodes + 1, "child_token": nodes - 1}
        require_int32(source, arrays, sizes)
        return cls(
            **{name: arrays[name] for name in _ARRAYS},
            num_sequences=facts["num_sequences"],
            max_depth=facts["max_depth"],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trie to a file, whole or not at all (24 bytes a node); its folder must exist.

        Raises:
            StorageError: the file cannot be written.
        """
        write_arrays(path, self.arrays(), kind=_KIND, version=_VERSION, facts=self.facts())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> TokenTrie:
        """Open a saved trie. On the CPU its tensors lie on a memory-mapped file: pages are loaded when they
        are first used, and processes of one machine share them (`array_files` says how).

        Raises:
            MissingFileError: there is no such file.
            DataError: it is no trie, of another version, cut short or damaged, or its numbers lead nowhere;
                the message names it.
            StorageError: it cannot be read.
        """
        trie = cls.from_arrays(*read_arrays(path, kind=_KIND, version=_VERSION), path)
        # A copy is checked and dropped, since what the check touches of the mapping would stay in memory.
        fault = trie_fault(load_file(path), num_sequences=trie.num_sequences, max_depth=trie.max_depth)
        if fault:
            raise DataError(f"{path} is damaged: {fault}")
        return trie.to(device)

    def __len__(self) -> int:
        return self.parent.shape[0]

    def __repr__(self) -> str:
        return f"TokenTrie({self.num_sequences} sequences, {len(self)} nodes, on {self.device})"

    @property
    def device(self) -> torch.device:
        return self.parent.device

    def to(self, device: torch.device | str) -> TokenTrie:
        """The same trie with its tensors on `device` (itself where they are there already)."""
        if self.device == torch.device(device):
            return self
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.arrays().items()}
        return replace(self, **moved)

    @cached_property
    def largest_token(self) -> int:
        """The largest token of any sequence."""
        return int(self.child_token.max())

    @cached_property
    def title_order(self) -> TitleOrder:
        """The titles in depth-first order; made when it is first asked for, then kept (8 bytes a node)."""
        return title_order(self)

    def find(self, tokens: Sequence[int]) -> int:
        """The node that a prefix leads to (the root for no tokens), or -1 where no sequence starts like
        that.
        """
        node = 0
        for token in tokens:
            low, high = self.child_start[node : node + 2].tolist()
            edge = low + int(torch.searchsorted(self.child_token[low:high], int(token)))
            if edge == high or int(self.child_token[edge]) != int(token):
                return -1
            node = edge + 1
        return node

    def child_count(self, nodes: Tensor) -> Tensor:
        """Number of valid next tokens of each node: its children, and one more (end-of-sequence) at a
        terminal node.

        Args:
            nodes: node ids, any shape.

        Returns:
            long tensor of the same shape; at least 1 for every node.
        """
        nodes = nodes.long()
        return (self.child_start[nodes + 1] - self.child_start[nodes] + (self.terminal[nodes] >= 0)).long()

    def children(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The child nodes of each node and its end, as a padded table.

        Args:
            nodes: [N] node ids.

        Returns:
            (child [N, K] long, valid [N, K] bool), K = the largest `child_count`. Children come first, by
            token; the end of a terminal node follows them as -1. Padding is 0 and not valid.
        """
        nodes = nodes.long()
        start = self.child_start[nodes].long()
        inner = self.child_start[nodes + 1].long() - start
        ends = self.terminal[nodes] >= 0
        width = int((inner + ends).max()) if nodes.numel() else 0
        column = torch.arange(width, device=nodes.device)
        is_child = column < inner[:, None]
        is_end = (column == inner[:, None]) & ends[:, None]
        child = torch.where(is_child, start[:, None] + column + 1, torch.where(is_end, -1, 0))
        return child, is_child | is_end

    def tokens_of(self, child: Tensor, eos_token_id: int) -> Tensor:
        """The token that leads to each node of a `children` table: -1 (the end) becomes `eos_token_id`, 0
        becomes 0.
        """
        token = self.child_token[(child - 1).clamp(min=0)].long()
        return torch.where(child > 0, token, torch.where(child < 0, eos_token_id, 0))

    def candidates(self, nodes: Tensor, eos_token_id: int) -> tuple[Tensor, Tensor]:
        """The valid next tokens of each node, as a padded table.

        Args:
            nodes: [N] node ids.
            eos_token_id: the token that ends a sequence.

        Returns:
            (tokens [N, K] long, valid [N, K] bool), K = the largest `child_count`. Tokens ascend;
            end-of-sequence comes last of the valid ones of a terminal node. Padding is token 0 and not valid.
        """
        child, valid = self.children(nodes)
        return self.tokens_of(child, eos_token_id), valid

    def path_nodes(self, sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        """For each sequence the node BEFORE each of its tokens and before its end: len + 1 nodes, the root
        first.

        Raises:
            DataError: a sequence that is not a whole sequence of the trie; the message has its index.
        """
        if len(sequences) == 0:
            return []
        lists = TokenLists.of(sequences)
        tokens, starts, lengths = lists.tokens, lists.starts, lists.lengths
        # Edges are sorted by (parent, token), so one binary search a level finds a whole level's children.
        radix = max(int(self.child_token.max()), int(tokens.max(initial=0))) + 1
        keys = self.parent[1:].cpu().numpy().astype(np.int64) * radix + self.child_token.cpu().numpy()
        path = np.zeros((len(sequences), int(lengths.max()) + 1), dtype=np.int64)
        for level in range(path.shape[1] - 1):
            rows = np.flatnonzero(lengths > level)
            token = tokens[starts[rows] + level]
            key = path[rows, level] * radix + token
            edge = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            wrong = np.flatnonzero((keys[edge] != key) | (token < 0))
            if len(wrong):
                raise DataError(
                    f"sequence {int(rows[wrong[0]])} is not in the trie: no title has its token {level}"
                )
            path[rows, level + 1] = edge + 1
        unfinished = np.flatnonzero(self.terminal.cpu().numpy()[path[np.arange(len(path)), lengths]] < 0)
        if len(unfinished):
            raise DataError(
                f"sequence {int(unfinished[0])} is not in the trie: it is only the start of a title"
            )
        return [row[: length + 1] for row, length in zip(path.tolist(), lengths.tolist(), strict=True)]

    def sequences_at(self, nodes: Tensor) -> list[list[int]]:
        """The tokens from the root to each node; `nodes` is [N]."""
        node = nodes.long()
        length = self.depth[node].long()
        table = torch.zeros(
            len(node), int(length.max()) if len(node) else 0, dtype=torch.long, device=node.device
        )
        for _ in range(table.shape[1]):
            row = (node > 0).nonzero()[:, 0]  # a walk that has reached the root is done
            inner = node[row]
            table[row, self.depth[inner].long() - 1] = self.child_token[inner - 1].long()
            node = self.parent[node].long()
        return [row[:n] for row, n in zip(table.tolist(), length.tolist(), strict=True)]
