"""Descriptors, reproducibility and generalizability scores, their statistics."""
