"""Reads networks of other code bases, without running code, and writes safetensors and JSON."""
