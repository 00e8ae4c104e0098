"""Multistage networks (arXiv 2312.09181) on CIFAR-10: parameters of their own per noise interval.

    python -m reprojax.main --config=configs/multistage.py       # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/multistage.py:lab   # Fashion-MNIST at 16x16, a laptop

DDPM++ under EDM with a common encoder and one decoder for each of three intervals of noise levels;
with a whole network for each interval; and with a single network of the same width. The paper finds
its intervals by clustering optimal denoisers. The intervals here, decoders of one size and EDM's
budget (arXiv 2206.00364) are our choice.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 122.2 M, 167.2 M and 55.7 M parameters; 200 M images per model at 98.9, 127.1 and 42.4 GFLOP
forward each (every stage sees every image): 5.9e19, 7.6e19 and 2.5e19 FLOP, about 42, 54 and 18
hours of one H100 at 40 % of its bfloat16 peak, in about 160, 210 and 70 GB: several devices, or
``training.accumulate``. ``--dry_run`` prints it for any change. :lab: 2,500 steps of 64 images per
model.
Expect: the map from noise to image hardly changes with how parameters are shared between noise
levels: RP close to that of two seeds of one model.
"""

from reprojax import config as rc

BOUNDARIES = (-0.17, 0.4)  # of log(sigma) / 4, which the network reads: sigma about .5 and 5


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    if scale == "lab":
        config = rc.default_config("multistage_lab")
        rc.use_fashion_lab(config)
        network = rc.LAB_UNET
        config.training.update(steps=2500, learning_rate=2e-3)
    else:
        config = rc.default_config("multistage")
        rc.use_cifar10(config, "configs/multistage.py:lab")
        network = dict(width=128, multipliers=(2, 2, 2), num_blocks=4, dropout=0.13)
        config.training.update(rc.EDM_BUDGET)
    common = dict(boundaries=BOUNDARIES, shared="encoder", **network)
    apart = dict(boundaries=BOUNDARIES, shared="none", **network)
    rc.add_models(
        config,
        common_encoder=rc.network_model("multistage", network=common),
        common_encoder_seed1=rc.network_model("multistage", seed=1, network=common),
        apart=rc.network_model("multistage", network=apart),
        single=rc.network_model("unet", network=network),
    )
    rc.use_baselines(config)
    return config
