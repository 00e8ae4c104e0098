"""Three families on Fashion-MNIST, 60,000 training images, sampled from one noise bank.

    python -m reprojax.main --config=configs/fashion.py          # 16x16
    python -m reprojax.main --config=configs/fashion.py:32       # 32x32, padded, nothing resized

Data: ``apt-get install dataset-fashion-mnist``, or the four IDX files in a folder named by
``--config.data.path``. Of its 70,000 images 10,000 are held out.
Cost: 16x16: minutes of two CPU cores; 32x32: a day of them, or a GPU (docs/experiments.md).
Expect: RP and MAE scores between architectures and kernels far above chance and above those
with the Gaussian; GL at its reference; nothing memorized, since 60,000 images are many for
networks of this size.
"""

from reprojax import config as rc

# For each scale how images are fitted, (width, steps) of U-Nets and (patch, steps) of the U-ViT.
SCALES = {
    "16": dict(
        size=16, fit="resize", multipliers=(1, 2), small=(16, 2500), wide=(24, 1500), vit=(2, 4000)
    ),
    "32": dict(
        size=32,
        fit="pad",
        multipliers=(1, 2, 2),
        small=(32, 10_000),
        wide=(48, 10_000),
        vit=(4, 20_000),
    ),
}


def get_config(scale: str = ""):
    rc.require_scale(scale, SCALES)
    s = SCALES[scale or "16"]
    config = rc.default_config(f"fashion{s['size']}")
    config.data.update(source="fashion_mnist", split="all", size=s["size"], fit=s["fit"])
    config.data.n_train = 60_000
    config.data.n_heldout = 10_000
    config.noise.n = 512
    config.training.learning_rate = 2e-3
    (small, small_steps), (wide, wide_steps), (patch, vit_steps) = s["small"], s["wide"], s["vit"]
    unet = dict(multipliers=s["multipliers"], num_blocks=1, attention=(), dropout=0.0)
    first = dict(network=dict(width=small, **unet), training=dict(steps=small_steps))
    models = {
        f"unet{small}_edm": rc.network_model("unet", **first),
        f"unet{small}_edm_seed1": rc.network_model("unet", seed=1, **first),
        f"unet{wide}_vp": rc.network_model(
            "unet",
            kernel="vp",
            preconditioning="vp_v",
            objective="v",
            network=dict(width=wide, **unet),
            training=dict(steps=wide_steps),
        ),
        "uvit64_edm": rc.network_model(
            "uvit",
            network=dict(width=64, depth=2, num_heads=4, patch=patch, noise_scale=250.0),
            training=dict(steps=vit_steps, learning_rate=3e-3),
        ),
    }
    rc.add_models(config, **models)
    rc.use_baselines(config)
    return config
