"""Train state, step, loop, checkpoints, exported weights."""
