"""Training: the state and step, the loop, checkpoints and exported weights."""
