"""Is the encoding unique? Images to noises with one network, and back with another.

    python -m reprojax.main --config=configs/encoding.py

Networks of two architectures and two kernels, those of configs/fashion.py with the weights in
results/fashion16. Each encodes held-out images and its own samples, and each decodes them.
Data: Fashion-MNIST averaged to 16x16 (``apt-get install dataset-fashion-mnist``, or
``--config.data.path``).
Cost: minutes of two CPU cores (docs/experiments.md).
Expect: the round trip through one network is exact up to its solver; the transplant from one
network to another keeps the image far more often than chance, as it must if networks are
reproducible from the same noise.
"""

from pathlib import Path

from reprojax import config as rc

WEIGHTS = Path(__file__).resolve().parents[1] / "results" / "fashion16" / "weights"


def get_config(scale: str = ""):
    rc.require_scale(scale, [])
    config = rc.default_config("encoding")
    rc.use_fashion_lab(config)
    config.noise.n = 256
    unet = dict(multipliers=(1, 2), num_blocks=1, attention=(), dropout=0.0)
    vit = dict(width=64, depth=2, num_heads=4, patch=2, noise_scale=250.0)
    under_vp = dict(kernel="vp", preconditioning="vp_v", objective="v")
    models = dict(
        unet16_edm=dict(family="unet", network=dict(width=16, **unet)),
        unet24_vp=dict(family="unet", network=dict(width=24, **unet), **under_vp),
        uvit64_edm=dict(family="uvit", network=vit),
    )
    for name, fields in models.items():
        weights = str(WEIGHTS / f"{name}.safetensors")
        rc.add_models(config, **{name: rc.network_model(weights=weights, **fields)})
    rc.add_models(config, gaussian=rc.closed_form("gaussian"))
    rc.add_analysis(config, "encoding", cells=(*models, "gaussian"), n=128, num_steps=60)
    rc.add_analysis(config, "jacobian", cells=(*models, "gaussian"), n=8)
    return config
