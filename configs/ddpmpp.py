"""DDPM++ (arXiv 2011.13456) on CIFAR-10 under VP, sub-VP, VE and EDM, at the scale of the paper.

    python -m reprojax.main --config=configs/ddpmpp.py         # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/ddpmpp.py:lab     # Fashion-MNIST at 16x16, a laptop

VP in continuous time and at DDPM's 1,000 steps; VE's levels and loss with EDM's scaling of the
network's input and output.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 55.7 M parameters; 50 M images per model at 42.4 GFLOP forward each: 6.4e18 FLOP, about 4.5
hours on one H100 at 40 % of its bfloat16 peak, times six models. ``--dry_run`` prints it for any
change. :lab: docs/experiments.md.
Expect: at paper scale RP about .8 to .9 between kernels (arXiv 2310.05264, figure 6), close to that
of two seeds of one model.
"""

from reprojax import config as rc

# model: (kernel, preconditioning, objective)
MODELS = {
    "ddpmpp_vp": ("vp", "vp_eps", "eps"),
    "ddpmpp_vp_discrete": ("ddpm", "vp_eps", "eps_discrete"),
    "ddpmpp_subvp": ("subvp", "subvp_eps", "eps"),
    "ddpmpp_ve": ("ve", "edm", "eps"),
    "ddpmpp_edm": ("edm", "edm", "edm"),
}


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    if scale == "lab":
        config = rc.default_config("ddpmpp_lab")
        rc.use_fashion_lab(config)
        network = dict(width=16, multipliers=(1, 2), num_blocks=1, attention=(), dropout=0.0)
        config.training.update(steps=2500, learning_rate=2e-3)
    else:
        config = rc.default_config("ddpmpp")
        rc.use_cifar10(config, "configs/ddpmpp.py:lab")
        network = dict(width=128, multipliers=(2, 2, 2), num_blocks=4, dropout=0.13)
        config.training.update(
            steps=390_625, warmup_steps=78_125, decay="none", ema_halflife_images=500_000.0
        )
    # The levels that every model was trained at: VE begins at .02.
    config.sampling.sigma_min = 0.02
    for name, parametrisation in MODELS.items():
        fields = dict(zip(("kernel", "preconditioning", "objective"), parametrisation))
        rc.add_models(config, **{name: rc.network_model("unet", network=network, **fields)})
    seed1 = rc.network_model("unet", kernel="edm", seed=1, network=network)
    rc.add_models(config, ddpmpp_edm_seed1=seed1)
    rc.use_baselines(config)
    return config
