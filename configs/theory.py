"""Networks against Theorem 1: when do they follow the closed-form optimum, and when not?

    python -m reprojax.main --config=configs/theory.py

Data: Fashion-MNIST averaged to 8x8 (``apt-get install dataset-fashion-mnist``, or
``--config.data.path``), nested subsets of 16 to 4,096 images, 2,000 held out.
Cost: minutes of two CPU cores (docs/experiments.md).
Expect: with few images both networks are the empirical optimum of their training set on most noises
(RP with theory well above its chance), the wider one more; with many images they leave it and
generalize (GL at its reference), and RP with theory falls towards chance. Compare with the solver's
own error: RP of the optimum with itself, solved in more steps.
"""

from reprojax import config as rc

SIZES = (16, 64, 256, 1024, 4096)
WIDTHS = (8, 16)


def get_config(scale: str = ""):
    rc.require_scale(scale, [])
    config = rc.default_config("theory")
    rc.use_fashion_lab(config, size=8, n_train=max(SIZES), n_heldout=2000)
    config.noise.n = 512
    config.training.update(steps=4000, learning_rate=2e-3)
    unet = dict(multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
    for n in SIZES:
        networks = {
            f"unet{width}_n{n}": rc.network_model(
                "unet", n_train=n, network=dict(width=width, **unet)
            )
            for width in WIDTHS
        }
        rc.add_models(config, **networks)
        closed = {
            f"{form}_n{n}": rc.closed_form(form, n_train=n) for form in ("optimum", "gaussian")
        }
        rc.add_models(config, **closed)
    optima = tuple(f"optimum_n{n}" for n in SIZES)
    rc.add_analysis(config, "ceiling", cells=(*optima, f"gaussian_n{max(SIZES)}"), n=512)
    return config
