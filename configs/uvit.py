"""U-ViT (arXiv 2209.12152) under VP on CIFAR-10: small, with class labels, and mid-sized.

    python -m reprojax.main --config=configs/uvit.py         # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/uvit.py:lab     # Fashion-MNIST at 16x16, a laptop

U-ViT-S/2 as in the paper, twice; the same with a class token, where noise i gets class i mod 10;
and U-ViT-M, which the paper trains on ImageNet 64x64 in patches of 4: here in patches of 2, with
the small one's budget, which are our choice.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 500,000 steps of 128 images per model at 24.4 GFLOP forward each (44 M parameters), 70.2 for
U-ViT-M (130 M): 4.7e18 and 1.3e19 FLOP, about 3.3 and 9.5 hours on one H100 at 40 % of its bfloat16
peak. ``--dry_run`` prints it for any change. :lab: docs/experiments.md.
Expect: at paper scale samples of the quality of its paper, and RP about .8 with the U-Nets of
configs/ddpmpp.py from the same noise bank (arXiv 2310.05264, figure 6). Compare with two seeds
of one model. A model with a class has another map than one without: RP is high only where the class
fits.
"""

from reprojax import config as rc


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    if scale == "lab":
        config = rc.default_config("uvit_lab")
        rc.use_fashion_lab(config)
        small = dict(width=64, depth=2, num_heads=4, patch=2)
        mid = dict(width=96, depth=4, num_heads=6, patch=2)
        config.training.update(steps=5000, learning_rate=3e-3)
    else:
        config = rc.default_config("uvit")
        rc.use_cifar10(config, "configs/uvit.py:lab")
        small = dict(width=512, depth=12, num_heads=8, patch=2)
        mid = dict(width=768, depth=16, num_heads=12, patch=2)
        config.training.update(
            steps=500_000,
            learning_rate=2e-4,
            warmup_steps=2500,
            decay="none",
            beta2=0.999,
            weight_decay=0.03,
            ema_halflife_images=500_000.0,
        )
    vp = dict(kernel="vp", preconditioning="vp_eps", objective="eps")
    rc.add_models(
        config,
        uvit=rc.network_model("uvit", network=small, **vp),
        uvit_seed1=rc.network_model("uvit", seed=1, network=small, **vp),
        uvit_class=rc.network_model("uvit", network=dict(num_classes=10, **small), **vp),
        uvit_mid=rc.network_model("uvit", network=mid, **vp),
    )
    rc.use_baselines(config)
    return config
