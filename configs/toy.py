"""A mixture of low-rank Gaussians with a known distribution: network, empirical and true optimum.

    python -m reprojax.main --config=configs/toy.py

8 components of rank 4 in 8x8 images (section 3.2.1 of arXiv 2310.05264 asks for such a ground
truth). The empirical optimum of the training images and the optimum of the distribution are both
exact, and both are sampled from the same noises as the networks.
Cost: minutes of two CPU cores, no download (docs/experiments.md).
Expect: with few images the network follows the empirical optimum, with many the optimum of the
distribution, which it has never seen; the empirical optimum itself approaches the latter with N.
"""

from reprojax import config as rc

SIZES = (16, 64, 256, 1024, 4096)


def get_config(scale: str = ""):
    rc.require_scale(scale, [])
    config = rc.default_config("toy")
    config.data.update(source="mixture", dataset="8x4", size=8)
    config.data.update(n_train=max(SIZES), n_heldout=2000)
    config.noise.n = 512
    config.training.update(steps=3000, learning_rate=2e-3)
    unet = dict(width=16, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
    for n in SIZES:
        name = f"unet16_n{n}"
        rc.add_models(config, **{name: rc.network_model("unet", n_train=n, network=unet)})
        closed = {
            f"{form}_n{n}": rc.closed_form(form, n_train=n) for form in ("optimum", "gaussian")
        }
        rc.add_models(config, **closed)
    rc.add_models(config, population=rc.closed_form("population"))
    few, many = f"unet16_n{SIZES[0]}", f"unet16_n{SIZES[-1]}"
    rc.add_analysis(
        config,
        "jacobian",
        cells=(few, many, f"optimum_n{SIZES[-1]}", "population", f"gaussian_n{SIZES[-1]}"),
    )
    return config
