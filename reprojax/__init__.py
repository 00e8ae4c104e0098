"""reprojax: how reproducible and how general is a diffusion model?"""

__version__ = "0.1.0"
