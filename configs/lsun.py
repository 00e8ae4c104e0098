"""DDPM++ under EDM and VP on LSUN at 64x64, read by its TFDS name.

    python -m reprojax.main --config=configs/lsun.py              # lsun/church_outdoor
    python -m reprojax.main --config=configs/lsun.py:bedroom      # or bedroom, classroom, tower

Data: TFDS ``lsun/NAME``, prepared once with the extra ``reprojax[tensorflow]`` (the error
without it prints the command); ``--config.data.path`` is its data_dir.
Cost: 500,000 steps of 128 images per model; one GPU for days. ``--dry_run`` prints it.
Expect: high RP between the kernels, GL at its reference; not yet run.
"""

from reprojax import config as rc

SCENES = ("church_outdoor", "bedroom", "classroom", "tower")


def get_config(scale: str = ""):
    rc.require_scale(scale, SCENES)
    scene = scale or "church_outdoor"
    config = rc.default_config(f"lsun_{scene}")
    config.data.update(source="tfds", dataset=f"lsun/{scene}", size=64, channels=3)
    config.data.n_heldout = 10_000
    config.noise.n = 10_000
    config.sampling.batch_size = 256
    config.training.update(
        steps=500_000,
        batch_size=128,
        learning_rate=2e-4,
        warmup_steps=10_000,
        decay="none",
        ema_halflife_images=500_000.0,
        dtype="bfloat16",
        flip=True,
    )
    config.loop.update(checkpoint_every=10_000, eval_every=10_000, log_every=100)
    config.hint = "a smaller study of the same kind: configs/fashion.py"
    network = dict(width=128, multipliers=(1, 2, 2, 2), num_blocks=2, attention=(16,))
    vp = dict(kernel="vp", preconditioning="vp_eps", objective="eps")
    rc.add_models(
        config,
        ddpmpp_edm=rc.network_model("unet", network=network),
        ddpmpp_vp=rc.network_model("unet", network=network, **vp),
        ddpmpp_edm_seed1=rc.network_model("unet", seed=1, network=network),
        gaussian=rc.closed_form("gaussian"),
    )
    return config
