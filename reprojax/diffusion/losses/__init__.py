"""Training objectives: denoising, consistency and distillation."""
