"""Random-access image sources, nested and disjoint subsets, deterministic batches."""
