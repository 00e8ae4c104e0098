"""Memorized, spurious, generalized: planted copies are found, and nothing else."""

import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.scoring.models import memorized
from reprojax.scoring.spurious import STATES, sample_states, state_shares


def images(rng, n):
    return rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)


def near(image):
    """The same but for one grey level of one pixel."""
    copy = image.copy()
    copy[0, 0, 0] ^= 1
    return copy


def test_planted_copies_have_their_states():
    rng = np.random.default_rng(0)
    train, new = images(rng, 40), images(rng, 9)
    samples = np.stack(
        [
            near(train[3]),  # memorized, though it occurs once
            near(train[7]),  # memorized, though it occurs twice
            near(train[7]),
            new[0],  # spurious: near copies of one another
            near(new[0]),
            new[1],  # three noises reach one attractor
            near(new[1]),
            new[1],
            *new[2:],  # generalized
        ]
    )
    states = sample_states(samples, train)
    assert states.tolist() == [0] * 3 + [1] * 5 + [2] * 7
    assert np.mean(states == 0) == memorized(samples, train)
    shares = state_shares(states)
    assert [shares[s]["value"] for s in STATES] == [3 / 15, 5 / 15, 7 / 15]
    for share in shares.values():
        assert share["ci95"][0] < share["value"] < share["ci95"][1]


def test_a_sample_is_no_copy_of_itself_and_order_does_not_matter():
    rng = np.random.default_rng(1)
    train, samples = images(rng, 30), images(rng, 50)
    assert np.all(sample_states(samples, train) == 2)
    samples[41] = samples[5]
    order = rng.permutation(50)
    states = sample_states(samples, train)
    assert np.flatnonzero(states == 1).tolist() == [5, 41]
    assert np.array_equal(sample_states(samples[order], train), states[order])


def test_the_criterion_is_brute_force_and_strict():
    rng = np.random.default_rng(2)
    base = rng.integers(0, 256, (6, 4, 4, 1))
    step = rng.integers(-60, 61, (200, 4, 4, 1))
    samples = np.clip(base[rng.integers(0, 6, 200)] + step, 0, 255).astype(np.uint8)
    train = images(rng, 12)
    train[:4] = samples[:4] // 2 + train[:4] // 2
    a = samples.reshape(200, -1).astype(int)
    to_train = np.sort(((a[:, None] - train.reshape(12, -1).astype(int)) ** 2).sum(-1), axis=1)
    own = ((a[:, None] - a) ** 2).sum(-1)
    np.fill_diagonal(own, 10**9)
    first = 9 * to_train[:, 0] < to_train[:, 1]
    expected = np.where(first, 0, np.where(9 * own.min(1) < to_train[:, 1], 1, 2))
    states = sample_states(samples, train)
    assert np.array_equal(states, expected) and len(set(expected.tolist())) > 1


@pytest.mark.parametrize("n, n_train, field", [(1, 5, "samples"), (5, 1, "train")])
def test_too_few_images_are_named(n, n_train, field):
    rng = np.random.default_rng(3)
    with pytest.raises(InputError, match=field):
        sample_states(images(rng, n), images(rng, n_train))
