"""DDPM (arXiv 2006.11239) on CIFAR-10, at the scale of the paper; its network under VP and EDM.

    python -m reprojax.main --config=configs/ddpm.py         # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/ddpm.py:lab     # Fashion-MNIST at 16x16, a laptop

The same network three times: trained at DDPM's own 1,000 steps, in the continuous time of VP
(arXiv 2011.13456), and with EDM's preconditioning and loss (arXiv 2206.00364).
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 35.7 M parameters; 102 M images per model at 12.4 GFLOP forward each: 3.8e18 FLOP, about 2.7
hours on one H100 at 40 % of its bfloat16 peak, times four models. ``--dry_run`` prints it for any
change. :lab: 2,500 steps of 64 images per model.
Expect: discrete and continuous time and EDM's parametrisation agree about as much as two seeds of
one model do (arXiv 2310.05264, figure 6).
"""

from reprojax import config as rc

# model: (kernel, preconditioning, objective)
MODELS = {
    "ddpm": ("ddpm", "vp_eps", "eps_discrete"),
    "ddpm_vp": ("vp", "vp_eps", "eps"),
    "ddpm_edm": ("edm", "edm", "edm"),
}


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    if scale == "lab":
        config = rc.default_config("ddpm_lab")
        rc.use_fashion_lab(config)
        network = rc.LAB_UNET
        config.training.update(steps=2500, learning_rate=2e-3)
    else:
        config = rc.default_config("ddpm")
        rc.use_cifar10(config, "configs/ddpm.py:lab")
        network = dict(width=128, multipliers=(1, 2, 2, 2), num_blocks=2, dropout=0.1)
        config.training.update(
            steps=800_000,
            learning_rate=2e-4,
            warmup_steps=5000,
            decay="none",
            ema_halflife_images=887_000.0,  # .9999 a step
        )
    # The levels that every model was trained at: DDPM's first step is at .01.
    config.sampling.sigma_min = 0.01
    for name, parametrisation in MODELS.items():
        fields = dict(zip(("kernel", "preconditioning", "objective"), parametrisation))
        rc.add_models(config, **{name: rc.network_model("ddpm", network=network, **fields)})
        if name == "ddpm":
            seed1 = rc.network_model("ddpm", seed=1, network=network, **fields)
            rc.add_models(config, ddpm_seed1=seed1)
    rc.use_baselines(config)
    return config
