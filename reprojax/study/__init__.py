"""Cells of a grid, the stages train, sample, describe, score, and their runner."""
