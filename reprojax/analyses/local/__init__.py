"""Whether locality explains a network's samples."""
