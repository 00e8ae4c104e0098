"""EDM (arXiv 2206.00364) on CIFAR-10 with both of its networks, at the scale of the paper.

    python -m reprojax.main --config=configs/edm.py         # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/edm.py:lab     # Fashion-MNIST at 16x16, a laptop

One preconditioning, loss and noise distribution with DDPM++ and with NCSN++, the architectures that
the paper's last configurations of VP and VE have. Flips are the only augmentation here.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 55.7 M and 56.4 M parameters; 200 M images per model at 42.4 and 42.8 GFLOP forward each:
2.5e19 FLOP, about 18 hours on one H100 at 40 % of its bfloat16 peak, times three models.
``--dry_run`` prints it for any change. :lab: 2,500 steps of 64 images per model.
Expect: the two architectures agree about as much as two seeds of one model, DDPM++, do.
"""

from reprojax import config as rc


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    if scale == "lab":
        config = rc.default_config("edm_lab")
        rc.use_fashion_lab(config)
        network = rc.LAB_UNET
        config.training.update(steps=2500, learning_rate=2e-3)
    else:
        config = rc.default_config("edm")
        rc.use_cifar10(config, "configs/edm.py:lab")
        network = dict(width=128, multipliers=(2, 2, 2), num_blocks=4, dropout=0.13)
        config.training.update(rc.EDM_BUDGET)
    rc.add_models(
        config,
        ddpmpp_edm=rc.network_model("unet", network=network),
        ddpmpp_edm_seed1=rc.network_model("unet", seed=1, network=network),
        ncsnpp_edm=rc.network_model("ncsnpp", network=network),
    )
    rc.use_baselines(config)
    return config
