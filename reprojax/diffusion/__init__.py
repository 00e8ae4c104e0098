"""Perturbation kernels, noise-level grids, preconditioning and training objectives."""
