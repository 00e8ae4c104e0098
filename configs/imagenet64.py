"""DDPM++ and U-ViT on ImageNet at 64x64, read by its TFDS name.

    python -m reprojax.main --config=configs/imagenet64.py

Data: TFDS ``downsampled_imagenet/64x64``, prepared once with the extra ``reprojax[tensorflow]``
(the error without it prints the command); ``--config.data.path`` is its data_dir.
Cost: 1,000,000 steps of 256 images per model: for a pod, not for a laptop. ``--dry_run`` prints it.
Expect: GL at its reference (1.28 M images are far beyond what these networks memorize) and RP far
above chance; not yet run.
"""

from reprojax import config as rc


def get_config(scale: str = ""):
    rc.require_scale(scale, [])
    config = rc.default_config("imagenet64")
    config.data.update(source="tfds", dataset="downsampled_imagenet/64x64", size=64)
    config.data.n_heldout = 50_000
    config.noise.n = 10_000
    config.sampling.batch_size = 256
    config.training.update(
        steps=1_000_000,
        batch_size=256,
        learning_rate=2e-4,
        warmup_steps=10_000,
        decay="none",
        ema_halflife_images=2_000_000.0,
        dtype="bfloat16",
        flip=True,
    )
    config.loop.update(
        checkpoint_every=10_000, eval_every=10_000, log_every=100, state_sharding="sharded"
    )
    config.hint = "a smaller study of the same kind: configs/fashion.py"
    rc.add_models(
        config,
        ddpmpp_edm=rc.network_model(
            "unet", network=dict(width=192, multipliers=(1, 2, 3), num_blocks=3, attention=(16, 8))
        ),
        uvit_vp=rc.network_model(
            "uvit",
            kernel="vp",
            preconditioning="vp_eps",
            objective="eps",
            network=dict(width=768, depth=16, num_heads=12, patch=4),
        ),
        gaussian=rc.closed_form("gaussian"),
    )
    return config
