"""Whether the encoding of images as noises is unique."""
