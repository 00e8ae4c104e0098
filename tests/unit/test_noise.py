"""The noise bank: bits that depend on (seed, index) alone."""

import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.sampling.noise import NoiseBank, load_noise

SHAPE = (4, 4, 1)


def test_any_split_gives_the_same_bits():
    bank = NoiseBank(5, 70, SHAPE)
    whole = bank.all()
    for size in (1, 7, 64, 70):
        np.testing.assert_array_equal(np.concatenate(list(bank.blocks(size))), whole)
    np.testing.assert_array_equal(NoiseBank(5, 10, SHAPE).all(), whole[:10])


def test_it_is_standard_normal_and_seeds_differ():
    whole = NoiseBank(0, 4096, SHAPE).all()
    assert whole.dtype == np.float32
    assert abs(whole.mean()) < 0.01 and abs(whole.std() - 1) < 0.01
    assert abs(np.corrcoef(whole[0].ravel(), whole[1].ravel())[0, 1]) < 0.8
    other = NoiseBank(1, 4096, SHAPE).all()
    assert abs(np.corrcoef(whole.ravel(), other.ravel())[0, 1]) < 0.02


def test_the_fingerprint_follows_the_bits():
    prints = {NoiseBank(s, n, SHAPE).fingerprint() for s, n in [(0, 8), (0, 9), (1, 8)]}
    assert len(prints) == 3
    assert NoiseBank(0, 8, SHAPE).fingerprint() in prints


def test_the_bits_are_pinned():
    """A changed stream, PRNG or fold would silently break every stored comparison."""
    assert NoiseBank(0, 4, (2, 2, 1)).fingerprint() == "4799260509042591"


def test_a_file_round_trips(tmp_path):
    bank = NoiseBank(3, 12, SHAPE)
    np.savez(tmp_path / "z.npz", noise=bank.all())
    stored = load_noise(tmp_path / "z.npz", 12, SHAPE)
    assert stored.fingerprint() == bank.fingerprint()
    np.testing.assert_array_equal(stored.block(2, 5), bank.block(2, 5))


@pytest.mark.parametrize("case", ["absent", "float64", "shape", "few", "nan", "objects", "cut"])
def test_bad_files_are_named(tmp_path, case):
    path, noise = tmp_path / "z.npz", NoiseBank(3, 12, SHAPE).all()
    if case == "objects":
        noise = np.array([{"a": 1}] * 12, dtype=object)
    if case == "nan":
        noise[3, 0, 0, 0] = np.nan
    noise = {"float64": noise.astype, "shape": lambda _: noise[:, :2]}.get(case, lambda _: noise)(
        np.float64
    )
    if case != "absent":
        np.savez(path, noise=noise)
    if case == "cut":
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"noise\.path"):
        load_noise(path, 13 if case == "few" else 12, SHAPE)


def test_the_first_noises_are_a_bank_of_their_own():
    bank = NoiseBank(3, 10, (2, 2, 1))
    np.testing.assert_array_equal(bank.first(4).all(), bank.all()[:4])
    stored = NoiseBank(-1, 10, (2, 2, 1), bank.all())
    assert stored.first(4).fingerprint() == bank.first(4).fingerprint()
    assert bank.first(99) == bank
