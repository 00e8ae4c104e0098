import numpy as np
import pytest

from reprojax.data.transform import Layout, luma, pad, resize, to_float, to_uint8
from reprojax.errors import InputError


def test_uint8_survives_the_round_trip_exactly():
    values = np.arange(256, dtype=np.uint8)
    floats = to_float(values)
    assert floats.dtype == np.float32
    assert (floats.min(), floats.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(floats), values)


def test_to_uint8_rounds_and_clips():
    np.testing.assert_array_equal(to_uint8([-3.0, 0.004, 3.0]), [0, 128, 255])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_to_uint8_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="1 of 2"):
        to_uint8(np.array([0, bad]))


def test_shrinking_averages_boxes_and_growing_interpolates():
    image = np.array([[0, 100], [100, 200]], np.uint8)[..., None]
    np.testing.assert_array_equal(resize(np.kron(image, np.ones((3, 3, 1), np.uint8)), 2), image)
    assert resize(image, 1).item() == 100
    grown = resize(image, 4)[0, :, 0]
    assert grown[0] == 0 and grown[-1] == 100 and 0 < grown[1] < grown[2] < 100


def test_pad_centres_on_zeros_and_refuses_to_cut():
    padded = pad(np.full((2, 3, 1), 9, np.uint8), 5)[..., 0]
    assert (padded[1:3, 1:4] == 9).all() and padded.sum() == 6 * 9
    with pytest.raises(InputError, match="at least 3"):
        pad(np.zeros((2, 3, 1), np.uint8), 2)


def test_luma_weighs_the_colours():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_array_equal(luma(colours)[0, :, 0], [76, 150, 29, 255])


def test_layout_brings_a_set_to_size_and_channels():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    assert Layout().images(grey) is grey
    colour = Layout(size=6, channels=3, fit="pad").images(grey)
    assert colour.shape == (3, 6, 6, 3)
    np.testing.assert_array_equal(colour[:, 1:5, 1:5], np.repeat(grey, 3, axis=3))
    np.testing.assert_array_equal(Layout(channels=1).images(colour)[:, 1:5, 1:5], grey)


@pytest.mark.parametrize(
    ("layout", "field"),
    [(Layout(size=-1), "size"), (Layout(channels=2), "channels"), (Layout(fit="crop"), "fit")],
)
def test_layout_names_the_field_that_is_wrong(layout, field):
    with pytest.raises(InputError) as caught:
        layout.validate()
    assert caught.value.field == f"data.{field}"
