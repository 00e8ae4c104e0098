"""The rank of a denoiser's Jacobian."""
