"""The networks (Flax Linen)."""
