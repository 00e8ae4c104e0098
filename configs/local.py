"""Does locality explain a convolutional network's samples? A local score machine beside it.

    python -m reprojax.main --config=configs/local.py

A U-Net without attention, and the patch-wise empirical optimum of arXiv 2412.20292 on the same
2,000 training images, its patch size calibrated on that network at each noise level. Both have the
same 64 noises and the same sampler.
Data: Fashion-MNIST averaged to 16x16 (``apt-get install dataset-fashion-mnist``, or
``--config.data.path``), 2,000 images, 10,000 held out.
Cost: minutes of two CPU cores (docs/experiments.md).
Expect: the network generalizes (GL at its reference, nothing memorized), and the machine predicts
its samples image by image better than the Gaussian and far better than the empirical optimum.
"""

from reprojax import config as rc


def get_config(scale: str = ""):
    rc.require_scale(scale, [])
    config = rc.default_config("local")
    rc.use_fashion_lab(config, n_train=2000)
    config.noise.n = 256
    config.training.update(steps=2000, learning_rate=2e-3)
    unet = dict(width=16, multipliers=(1, 2), num_blocks=1, dropout=0.0)
    rc.add_models(
        config,
        conv16=rc.network_model("conv_unet", network=unet),
        conv16_seed1=rc.network_model("conv_unet", seed=1, network=unet),
    )
    rc.use_baselines(config)
    rc.add_analysis(config, "local", cells=("conv16", "conv16_seed1", "gaussian", "optimum"))
    return config
