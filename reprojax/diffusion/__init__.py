"""Perturbation kernels, noise-level grids, preconditioning, objectives."""
