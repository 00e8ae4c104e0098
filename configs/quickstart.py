"""The main job on real images, in minutes: four networks and two closed forms on digits.

    python -m reprojax.main --config=configs/quickstart.py

Cost: 4 minutes of two CPU cores; no GPU, no download.
Expect: networks of another architecture and another kernel make nearly the same digit from the same
noise: RP and MAE scores far above chance and above those with the Gaussian, close to those of two
seeds of one model; nothing memorized.
"""

from reprojax import config as rc


def get_config(scale: str = ""):
    rc.require_scale(scale, [])
    config = rc.default_config("quickstart")
    config.data.source = "digits"
    config.data.n_train = 1500
    config.data.n_heldout = 297
    config.noise.n = 512
    config.training.steps = 1600
    config.training.learning_rate = 2e-3
    small = dict(multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
    rc.add_models(
        config,
        unet8_edm=rc.network_model("unet", network=dict(width=8, **small)),
        unet8_edm_seed1=rc.network_model("unet", seed=1, network=dict(width=8, **small)),
        unet16_vp=rc.network_model(
            "unet",
            kernel="vp",
            preconditioning="vp_v",
            objective="v",
            network=dict(width=16, **small),
            training=dict(steps=1200),
        ),
        uvit64_edm=rc.network_model(
            "uvit",
            network=dict(width=64, depth=2, num_heads=4, patch=2, noise_scale=250.0),
            training=dict(steps=4000, learning_rate=3e-3),
        ),
    )
    rc.use_baselines(config)
    return config
