"""From an objective's wish to answers in tokens: which supplier, with what of the task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bearray.batching import Answer, Example
from bearray.config import RunConfig
from bearray.errors import ConfigError
from bearray.extras import training_counts
from bearray.negatives.chance import PopularityNegatives, UniformNegatives
from bearray.negatives.drawn import Drawn, Supplier
from bearray.negatives.generated import GeneratedAnswers
from bearray.negatives.near import NearNegatives, title_embeddings
from bearray.negatives.sampled import SampledTitles
from bearray.objectives import NegativeSpec
from bearray.task import Task
from bearray.trie import TokenTrie


class OtherAnswers:
    """The answers beside the target, for windows by number.

    Args:
        spec: what the objective asks for; `check_negatives` has passed.
        config: the run: seed, decoding, `objective.near_to`.
        task: its data in tokens.
        examples: its training windows in tokens.
        model: base model with adapter, whole on this worker now.
        trie: the catalogue's titles on the model's device.
    """

    def __init__(
        self,
        spec: NegativeSpec,
        config: RunConfig,
        task: Task,
        examples: Sequence[Example],
        model: nn.Module,
        trie: TokenTrie,
    ) -> None:
        self.task = task
        self.count = spec.count
        self.trie = task.catalog.trie
        targets = [e.target_title for e in examples]
        seed = config.train.seed
        self.supplier: Supplier
        if spec.kind == "uniform":
            self.supplier = UniformNegatives(targets, len(task.catalog), spec.count, seed)
        elif spec.kind == "popularity":
            self.supplier = PopularityNegatives(targets, training_counts(task), spec.count, seed)
        elif spec.kind == "near":
            histories = task.histories("train") if config.objective.near_to == "history" else None
            vectors = title_embeddings(model, task.catalog.tokens)
            self.supplier = NearNegatives(targets, histories, vectors, spec.count, seed)
        elif spec.kind == "sample":
            self.supplier = SampledTitles(
                model,
                trie,
                [e.prompt for e in examples],
                count=spec.count,
                batch_size=config.decoding.batch_size,
                pad_token_id=task.pad_token_id,
                seed=seed,
            )
        else:
            self.supplier = GeneratedAnswers(
                model,
                trie,
                [e.prompt for e in examples],
                targets,
                count=spec.count,
                keep_target=spec.kind == "rollout",
                decoding=config.decoding,
                pad_token_id=task.pad_token_id,
                seed=seed,
            )

    @property
    def uses_model(self) -> bool:
        """Calling it runs the model, so its weights must be whole on this worker."""
        return self.supplier.uses_model

    def __call__(self, rows: Sequence[int], step: int) -> list[list[Answer]]:
        """For each window its answers, at an optimiser step; what they are depends on nothing else."""
        return self.answers(self.draw(rows, step))

    def draw(self, rows: Sequence[int], step: int) -> list[list[Drawn]]:
        """The titles alone: for each window at most `count`."""
        return self.supplier(rows, step)

    def answers(self, drawn: Sequence[Sequence[Drawn]]) -> list[list[Answer]]:
        """Drawn titles as answers in tokens."""
        titles = sorted({d.title for own in drawn for d in own})
        tokens = self.task.catalog.tokens
        paths = self.trie.path_nodes([tokens[t] for t in titles]) if titles else []
        nodes = {t: [int(n) for n in path] for t, path in zip(titles, paths, strict=True)}
        end = self.task.eos_token_id
        return [[Answer([*tokens[t], end], nodes[t], t, score) for t, score in own] for own in drawn]


def check_negatives(spec: NegativeSpec, config: RunConfig, task: Task) -> None:
    """Make sure that every window can have as many other answers as the objective wants.

    Raises:
        ConfigError: there are not that many titles.
    """
    if spec.kind == "sample":
        return  # with replacement
    titles, field = len(task.catalog), "objective.negatives"
    room, why = titles - 1, f"the catalogue has {titles} titles, the target among them"
    if spec.kind == "rollout":
        room, why, field = titles, f"the catalogue has {titles} titles", "objective.rollouts"
    elif spec.kind == "popularity":
        chosen = int((training_counts(task) > 0).sum())
        room, why = chosen - 1, f"{chosen} titles occur in the training split, the target among them"
    elif spec.kind == "near" and config.objective.near_to == "history":
        longest = max(len(set(own)) for own in task.histories("train"))
        room = titles - 1 - longest
        why = f"the catalogue has {titles} titles; the target and up to {longest} of a history are left out"
    if spec.count > room:
        raise ConfigError(
            f"objective {config.objective.name!r} wants {spec.count} {spec.kind} answers beside each target, "
            f"but {why}; lower {field} to {room} or less"
        )
