"""U-ViT-S/2 (arXiv 2209.12152) under VP on CIFAR-10, at the scale of the paper.

    python -m reprojax.main --config=configs/uvit.py         # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/uvit.py:lab     # Fashion-MNIST at 16x16, a laptop

Data: cifar-10-python.tar.gz, its place given by ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 500,000 steps of 128 images at 24.4 GFLOP forward each: 4.7e18 FLOP, about half a day on one
H100 at 40 % of its bfloat16 peak. ``--dry_run`` prints it for any change. :lab: see README.
Expect: at paper scale samples of the quality of its paper, and RP about .8 with the U-Nets of
configs/ddpmpp.py from the same noise bank (arXiv 2310.05264, figure 6). Two seeds are the ceiling.
"""

from reprojax import config as rc


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    if scale == "lab":
        config = rc.default_config("uvit_lab")
        rc.use_fashion_lab(config)
        network = dict(width=64, depth=2, num_heads=4, patch=2)
        config.training.update(steps=5000, learning_rate=3e-3)
    else:
        config = rc.default_config("uvit")
        rc.use_cifar10(config, "configs/uvit.py:lab")
        network = dict(width=512, depth=12, num_heads=8, patch=2)
        config.training.update(
            steps=500_000,
            learning_rate=2e-4,
            warmup_steps=2500,
            decay="none",
            beta2=0.999,
            weight_decay=0.03,
            ema_halflife_images=500_000.0,
        )
    vp = dict(kernel="vp", preconditioning="vp_eps", objective="eps", network=network)
    rc.add_models(
        config,
        uvit=rc.network_model("uvit", **vp),
        uvit_seed1=rc.network_model("uvit", seed=1, **vp),
    )
    rc.use_baselines(config)
    return config
