import numpy as np
import pytest

from reprojax.data.batches import BatchSchedule
from reprojax.errors import InputError
from reprojax.rng import host_permutation

SIZES = [(10, 5), (10, 3), (10, 10), (7, 16), (3, 20), (1, 4)]


@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_steps_cut_one_row_of_whole_epochs(n, batch_size):
    schedule = BatchSchedule(n, batch_size, seed=3)
    row = np.concatenate([schedule.indices(step) for step in range(4 * n)])
    assert row.dtype == np.int64 and len(row) == 4 * n * batch_size
    for epoch, order in enumerate(row.reshape(-1, n)):
        np.testing.assert_array_equal(order, host_permutation(3, "data/epoch", epoch, n))
        np.testing.assert_array_equal(np.sort(order), np.arange(n))


@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_a_step_depends_on_no_other(n, batch_size):
    schedule = BatchSchedule(n, batch_size, seed=0)
    forward = [schedule.indices(step) for step in range(20)]
    for step in np.random.default_rng(0).permutation(20):
        fresh = BatchSchedule(n, batch_size, seed=0).indices(int(step))
        np.testing.assert_array_equal(fresh, forward[step])


def test_a_batch_can_be_written_to_without_spoiling_the_next():
    schedule = BatchSchedule(8, 8, seed=0)
    first = schedule.indices(0).copy()
    schedule.indices(0)[:] = -1
    np.testing.assert_array_equal(schedule.indices(0), first)


def test_seeds_and_epochs_differ():
    a, b = BatchSchedule(50, 50, seed=0), BatchSchedule(50, 50, seed=1)
    assert not np.array_equal(a.indices(0), b.indices(0))
    assert not np.array_equal(a.indices(0), a.indices(1))


def test_far_steps_do_not_overflow():
    schedule = BatchSchedule(5, 512, seed=0)
    batch = schedule.indices(10**12)
    assert batch.shape == (512,) and set(batch) == set(range(5))


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), (4, 0)])
def test_nothing_to_draw(n, batch_size):
    with pytest.raises(InputError, match="at least 1"):
        BatchSchedule(n, batch_size, seed=0)
