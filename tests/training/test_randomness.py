import io
import random

import numpy as np
import pytest
import torch

from metaseg_monai.training.randomness import random_states, restore_random_states, seed_for, seeded


def draws():
    return (random.gauss(0, 1), np.random.randn(3).tolist(), torch.randn(3).tolist())  # noqa: NPY002


def test_states_survive_a_file_and_replay_the_draws():
    draws()  # an odd number of normal draws leaves half a pair behind, which is state too
    file = io.BytesIO()
    torch.save(random_states(), file)
    first = draws()
    file.seek(0)
    restore_random_states(torch.load(file, weights_only=True))
    assert draws() == first


def test_a_seeded_block_repeats_and_leaves_no_trace():
    before = random_states()
    with seeded(5):
        first = draws()
    with seeded(5):
        assert draws() == first
    with pytest.raises(ZeroDivisionError), seeded(5):
        random.choice([]) if draws() != first else 1 / 0
    after = draws()
    restore_random_states(before)
    assert draws() == after


def test_seeds_differ_where_their_numbers_do():
    numbers = [(0,), (0, 0), (0, 0, 0), (1, 2), (2, 1), (1, 2, 0), (5, 1, 2), (5, 2, 1)]
    seeds = {seed_for(*each) for each in numbers}
    assert len(seeds) == len(numbers)
    assert all(0 <= seed < 2**32 for seed in seeds)
