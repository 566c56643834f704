"""Batches by length and by memory."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma3Config, LlamaConfig

from bearray.decoding.batches import in_batches, users_that_fit
from bearray.errors import ConfigError, DataError

LENGTHS = torch.tensor([3, 9, 5, 9, 1, 7])
CPU = torch.device("cpu")


def run_all(lengths, batch_size, fit=lambda: 4, limit=10**9):
    """The batches that were run, each told to fail above `limit` users, and those that failed."""
    done, failed = [], []

    def run(rows):
        if len(rows) > limit:
            failed.append(len(rows))
            raise torch.OutOfMemoryError("too many users")
        done.append(rows.tolist())

    in_batches(lengths, batch_size, fit, run)
    return done, failed


def test_longest_prompts_come_first():
    assert run_all(LENGTHS, 4) == ([[1, 3, 5, 2], [0, 4]], [])


def test_without_a_size_the_estimate_is_taken():
    assert run_all(LENGTHS, None, fit=lambda: 5) == ([[1, 3, 5, 2, 0], [4]], [])


def test_a_batch_that_runs_out_of_memory_is_halved_and_nothing_is_lost():
    assert run_all(LENGTHS, None, fit=lambda: 100, limit=2) == ([[1], [3], [5], [2], [0], [4]], [6, 3])
    done, failed = run_all(LENGTHS, None, fit=lambda: 4, limit=2)
    assert done == [[1, 3], [5, 2], [0, 4]]
    assert failed == [4]


def test_a_size_that_was_asked_for_is_not_changed():
    with pytest.raises(torch.OutOfMemoryError):
        run_all(LENGTHS, 4, limit=2)


def test_one_user_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        run_all(LENGTHS, None, limit=0)


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        run_all(LENGTHS, 0)
    with pytest.raises(DataError, match="no prompts"):
        run_all(LENGTHS[:0], None)


def test_larger_models_and_longer_prompts_take_fewer_users():
    small = LlamaConfig(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8)
    large = LlamaConfig(  # Llama-3-8B
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8,
    )  # fmt: skip
    fits = [users_that_fit(c, CPU, 4, t, 300) for c in (small, large) for t in (200, 2000)]
    assert fits == sorted(fits, reverse=True)
    assert fits[0] == 32  # more would not be faster
    # By hand: 2,300 tokens of keys and values in 32 layers of 8 heads of 128 are 0.6 GB; with 2,000 tokens of
    # activations one user needs more than half of what a batch may take.
    assert fits[-1] == 1
    assert users_that_fit(large, CPU, 2, 200, 300) > users_that_fit(large, CPU, 4, 200, 300)


def test_a_config_that_nests_its_text_model():
    config = Gemma3Config(text_config={"hidden_size": 64, "num_hidden_layers": 2})
    assert users_that_fit(config, CPU, 4, 100, 100) == 32
