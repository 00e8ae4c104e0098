"""How many evaluations a solver needs: one network and one closed form, solver by solver.

    python -m reprojax.main --config=configs/solvers.py

The network is the U-Net of configs/fashion.py; its weights in results/fashion16 are used as they
are (``--config.models.unet16_edm.weights=`` trains it again). The closed form is the empirical
optimum of 1,024 images, which is harder to solve, because its denoiser jumps from image to image.
Data: Fashion-MNIST averaged to 16x16 (``apt-get install dataset-fashion-mnist``, or
``--config.data.path``).
Cost: minutes of two CPU cores (docs/experiments.md).
Expect: all deterministic solvers lead to the same images, the better ones in some 20 evaluations
(RP .99 with the limit at 1,000); stochastic sampling from the same noise leads elsewhere with any
number of evaluations.
"""

from pathlib import Path

from reprojax import config as rc

WEIGHTS = Path(__file__).resolve().parents[1] / "results" / "fashion16" / "weights"


def get_config(scale: str = ""):
    rc.require_scale(scale, [])
    config = rc.default_config("solvers")
    rc.use_fashion_lab(config)
    config.noise.n = 256
    config.training.update(steps=2500, learning_rate=2e-3)
    unet = dict(width=16, multipliers=(1, 2), num_blocks=1, attention=(), dropout=0.0)
    weights = WEIGHTS / "unet16_edm.safetensors"
    rc.add_models(
        config,
        unet16_edm=rc.network_model(
            "unet", network=unet, weights=str(weights) if weights.exists() else ""
        ),
        optimum=rc.closed_form("optimum", n_train=1024),
        gaussian=rc.closed_form("gaussian"),
    )
    rc.add_analysis(config, "solvers", cells=("unet16_edm", "optimum"), n=128)
    return config
