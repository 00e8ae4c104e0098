"""The mixture as a data set."""

import numpy as np
import pytest

from reprojax.data.mixture import IMAGES, ROUNDING, make_mixture, mixture_of
from reprojax.data.source import SourceSpec, open_source
from reprojax.data.transform import to_float
from reprojax.errors import InputError

SPEC = SourceSpec("mixture", dataset="8x4")
EVERY = np.arange(IMAGES)


@pytest.fixture(scope="module")
def source():
    return open_source(SPEC)


def test_shape_dtype_and_labels(source):
    assert len(source) == IMAGES == 60_000 and source.shape == (8, 8, 1)
    images = source.gather(EVERY)
    assert images.dtype == np.uint8 and images.shape == (IMAGES, 8, 8, 1)
    assert source.labels.dtype == np.int32
    counts = np.bincount(source.labels)
    assert len(counts) == 8 and np.abs(counts / IMAGES - 1 / 8).max() < 0.01
    np.testing.assert_array_equal(source.labels, mixture_of(SPEC).components(IMAGES))


def test_size_and_channels():
    source = open_source(SourceSpec("mixture", dataset="2x3", size=5, channels=3, split="all"))
    assert source.shape == (5, 5, 3)
    mixture = mixture_of(SourceSpec("mixture", dataset="2x3", size=5, channels=3))
    assert mixture.bases.shape == (2, 75, 3) and mixture.sample(4).shape == (4, 5, 5, 3)


def test_fingerprint(source):
    first = np.arange(1000)
    same = open_source(SourceSpec("mixture", dataset="8x4", size=8, channels=1))
    assert same.fingerprint(first) == source.fingerprint(first)
    others = [open_source(SourceSpec("mixture", dataset=name)) for name in ("8x5", "4x4")]
    assert len({s.fingerprint(first) for s in (source, *others)}) == 3


def test_images_are_the_rounded_draws_of_the_mixture(source):
    mixture = mixture_of(SPEC)
    drawn = make_mixture(mixture.spec).sample(IMAGES)
    assert np.mean(np.abs(drawn).reshape(IMAGES, -1).max(1) > 1) < 1e-3
    rounding = to_float(source.gather(EVERY)) - np.clip(drawn, -1, 1)
    assert np.abs(rounding).max() < 1 / 255 + 1e-6
    assert abs(rounding.var() / ROUNDING - 1) < 0.01
    np.testing.assert_array_equal(mixture.floors, np.full(8, ROUNDING))


def test_an_image_stays_the_same_in_a_longer_draw(source):
    mixture = make_mixture(mixture_of(SPEC).spec)
    longer = mixture.sample(100, IMAGES - 50)
    rounded = to_float(source.gather(EVERY[-50:]))
    np.testing.assert_allclose(longer[:50], rounded, rtol=0, atol=1 / 255 + 1e-6)
    assert np.abs(longer[50:] - rounded).max() > 0.1  # new ones, not the first again


def test_the_noise_of_rounding_is_what_the_floors_say(source):
    """Outside its component's basis an image has only rounding: the denoiser's floor."""
    mixture, images = mixture_of(SPEC), to_float(source.gather(EVERY)).reshape(IMAGES, -1)
    for k, basis in enumerate(mixture.bases):
        centred = images[source.labels == k] - mixture.means[k]
        parts = centred @ basis
        rest = centred - parts @ basis.T
        assert abs((rest**2).sum() / (len(rest) * 60) / ROUNDING - 1) < 0.02
        np.testing.assert_allclose(parts.var(0), mixture.variances[k], rtol=0.1)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("data.dataset", dict(dataset="")),
        ("data.dataset", dict(dataset="8")),
        ("data.dataset", dict(dataset="8x")),
        ("data.dataset", dict(dataset="8x4x2")),
        ("data.dataset", dict(dataset=" 8x4")),
        ("data.dataset", dict(dataset="-8x4")),
        ("data.dataset", dict(dataset="0x4")),
        ("data.dataset", dict(dataset="8x0")),
        ("data.dataset", dict(dataset="65x4")),
        ("data.dataset", dict(dataset="8x65")),
        ("data.dataset", dict(dataset="8x5", size=2)),
        ("data.split", dict(dataset="8x4", split="test")),
        ("data.channels", dict(dataset="8x4", channels=2)),
        ("data.size", dict(dataset="8x4", size=-1)),
    ],
)
def test_what_is_wrong_is_named(field, changes):
    with pytest.raises(InputError) as caught:
        open_source(SourceSpec("mixture", **changes))
    assert caught.value.field == field and "\n" not in str(caught.value)
