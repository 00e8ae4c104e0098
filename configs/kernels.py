"""Reproducibility over perturbation kernels: one network under six of them.

    python -m reprojax.main --config=configs/kernels.py

Each network is trained under its own kernel, with that kernel's usual parametrisation and loss;
all are sampled by one solver over one range of noise, from one noise bank.
Data: Fashion-MNIST averaged to 8x8 (``apt-get install dataset-fashion-mnist``, or
``--config.data.path``), 60,000 images, 10,000 held out.
Cost: minutes of two CPU cores (docs/experiments.md).
Expect: the kernel changes the images hardly more than another seed of one model does (edm against
edm_seed1), and RP is far above chance and above that with the Gaussian. The
exception is VE in its own parametrisation, which this budget does not train; "ve_edm" does.
"""

from reprojax import config as rc

# model: (kernel, preconditioning, objective). VE's own parametrisation feeds its network x as is,
# up to 80 times the data; "ve_edm" has the same noise levels and loss with EDM's scaling, which
# separates the kernel from the parametrisation.
MODELS = {
    "vp": ("vp", "vp_v", "v"),
    "subvp": ("subvp", "subvp_eps", "eps"),
    "ve": ("ve", "ve", "eps"),
    "ve_edm": ("ve", "edm", "eps"),
    "edm": ("edm", "edm", "edm"),
    "cosine": ("cosine", "vp_v", "v"),
    "rf": ("rf", "rf", "velocity"),
}


def get_config(scale: str = ""):
    rc.require_scale(scale, [])
    config = rc.default_config("kernels")
    rc.use_fashion_lab(config, size=8)
    config.noise.n = 512
    # The levels that every kernel was trained at: VE begins at .02.
    config.sampling.update(sigma_min=0.02, sigma_max=80.0)
    config.training.update(steps=3000, learning_rate=2e-3)
    unet = dict(width=16, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
    for name, parametrisation in MODELS.items():
        fields = dict(zip(("kernel", "preconditioning", "objective"), parametrisation))
        rc.add_models(config, **{name: rc.network_model("unet", network=unet, **fields)})
    rc.add_models(config, edm_seed1=rc.network_model("unet", seed=1, network=unet))
    rc.use_baselines(config)
    return config
