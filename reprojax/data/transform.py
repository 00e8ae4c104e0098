"""Conversions of pixels: size, channels, and between uint8 and floats in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reprojax.errors import InputError, require_choice

FITS = ("resize", "pad")
CHANNELS = (1, 3)
# ITU-R 601 luma in 16.16 fixed point, so that the result is the same on every machine.
LUMA = np.array([19595, 38470, 7471], np.uint32)


@dataclass(frozen=True)
class Layout:
    """The size and number of channels that all images of a set are brought to.

    Attributes:
        size: The side of the square image in pixels; 0 keeps the native height and width.
        channels: The number of channels: 1 (luma), 3 (grey repeated) or 0 (native).
        fit: How an image gets its size. ``"resize"`` averages boxes if no side grows and is
            bilinear otherwise, and does not keep the aspect ratio. ``"pad"`` centres the image on
            zeros.
    """

    size: int = 0
    channels: int = 0
    fit: str = "resize"

    def validate(self) -> None:
        """Raises InputError unless size, channels and fit are in range."""
        if self.size < 0:
            raise InputError("data.size", self.size, "must be 0 (native) or a side in pixels")
        if self.channels not in (0, *CHANNELS):
            raise InputError("data.channels", self.channels, "must be 0 (native), 1 or 3")
        require_choice("data.fit", self.fit, FITS)

    def shape(self, native: tuple[int, int, int]) -> tuple[int, int, int]:
        """Returns the shape (h, w, c) that an image of the shape ``native`` (h, w, c) gets."""
        h, w, c = native
        return self.size or h, self.size or w, self.channels or c

    def image(self, image: np.ndarray) -> np.ndarray:
        """Brings one image, uint8 `[h, w, c]` with c of 1 or 3, to this layout.

        Raises:
            InputError: The image is larger than ``size`` and ``fit`` is ``"pad"``.
        """
        if self.channels == 1 and image.shape[2] == 3:
            image = luma(image)
        elif self.channels == 3 and image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        if self.size and image.shape[:2] != (self.size, self.size):
            image = (pad if self.fit == "pad" else resize)(image, self.size)
        return image

    def images(self, images: np.ndarray) -> np.ndarray:
        """Brings images, uint8 `[n, h, w, c]`, to this layout.

        Returns:
            The images in this layout; the same array if they are in it already.

        Raises:
            InputError: As for `image`.
        """
        shape = self.shape(images.shape[1:])
        if shape == images.shape[1:]:
            return images
        out = np.empty((len(images), *shape), np.uint8)
        for i, image in enumerate(images):
            out[i] = self.image(image)
        return out


def luma(image: np.ndarray) -> np.ndarray:
    """Converts an RGB image, uint8 `[h, w, 3]`, to ITU-R 601 grey, uint8 `[h, w, 1]`."""
    return ((image @ LUMA + (1 << 15)) >> 16).astype(np.uint8)[..., None]


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 `[h, w, c]` to `[size, size, c]`, bilinear if a side grows, else by boxes."""
    from PIL import Image

    grows = size > min(image.shape[:2])
    method = Image.Resampling.BILINEAR if grows else Image.Resampling.BOX
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.resize((size, size), method)).reshape(size, size, -1)


def pad(image: np.ndarray, size: int) -> np.ndarray:
    """Centres uint8 `[h, w, c]` on zeros `[size, size, c]`; an odd remainder goes to the end.

    Raises:
        InputError: The image is larger than ``size``.
    """
    h, w, _ = image.shape
    if max(h, w) > size:
        requirement = f"must be at least {max(h, w)} to pad an image of {h}x{w}"
        raise InputError("data.size", size, requirement)
    top, left = (size - h) // 2, (size - w) // 2
    return np.pad(image, ((top, size - h - top), (left, size - w - left), (0, 0)))


def to_float(images: np.ndarray) -> np.ndarray:
    """Maps uint8 0..255 of any shape to float32 in [-1, 1] as x / 127.5 - 1.

    It works on NumPy arrays on the host and on JAX arrays on the device.
    """
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Maps floats in [-1, 1] of any shape to uint8 as clip(round(127.5 (x + 1)), 0, 255).

    Raises:
        ValueError: A value is not finite and would become an arbitrary pixel.
    """
    images = np.asarray(images)
    num_bad = images.size - np.count_nonzero(np.isfinite(images))
    if num_bad:
        raise ValueError(f"{num_bad} of {images.size} pixel values are not finite")
    return np.clip(np.rint(127.5 * (images + 1.0)), 0, 255).astype(np.uint8)
