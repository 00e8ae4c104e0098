"""Capacity against the number of training images."""
