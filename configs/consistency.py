"""Consistency models (arXiv 2303.01469, 2310.14189) on CIFAR-10: one step beside the whole path.

    python -m reprojax.main --config=configs/consistency.py       # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/consistency.py:lab   # Fashion-MNIST at 16x16, a laptop

NCSN++ five times: EDM as the teacher, with two seeds; consistency distillation (CD) from it;
consistency training (CT) and its improved form (iCT) without a teacher. Unlike in the papers the
optimiser is Adam, the metric is pseudo-Huber for all, the sampled moving average is also the target
of CD and CT, and CD has its teacher's dropout, because it has its teacher's network.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 56.4 M parameters, 42.8 GFLOP forward; 200 M images per teacher, 410 M per student: 2.6e19
FLOP for a teacher, 7.0e19 for CT and iCT (with their targets), 1.1e20 for CD (with its teacher),
about 18, 49 and 74 hours on one H100 at 40 % of its bfloat16 peak, as ``--dry_run`` counts;
students compute in float32, which is slower, in up to 210 GB (several devices, or
``training.accumulate``). :lab: 3,000 or 4,000 steps of 64 images per model.
Expect: CD gives nearly the image at the end of its teacher's path; CT and iCT learn the same map
from the data alone and come close to it. Compare with the teacher's two seeds.
"""

from reprojax import config as rc


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    # Sines and cosines of log sigma: the fast Fourier features of NCSN++ make consistency training
    # unstable (arXiv 2310.14189, section 3.3).
    network = dict(embedding="positional")
    if scale == "lab":
        config = rc.default_config("consistency_lab")
        rc.use_fashion_lab(config)
        network.update(rc.LAB_UNET)
        dropout = dict(edm=0.0, ct=0.0, ict=0.0)
        config.training.update(steps=3000, learning_rate=2e-3)
        published = dict(learning_rate=1e-3)
        improved = dict(steps=4000, learning_rate=1e-3, grad_clip=0.0)
        levels = dict(ct=(2, 40), ict=(10, 160))
    else:
        config = rc.default_config("consistency")
        rc.use_cifar10(config, "configs/consistency.py:lab")
        network.update(width=128, multipliers=(2, 2, 2), num_blocks=4)
        dropout = dict(edm=0.13, ct=0.0, ict=0.3)
        config.training.update(rc.EDM_BUDGET)
        # The half-life of the target average with which the published CT ends, .9986 a step.
        published = dict(
            steps=800_000, learning_rate=4e-4, ema_halflife_images=253_000.0, dtype="float32"
        )
        improved = dict(
            steps=400_000,
            batch_size=1024,
            learning_rate=1e-4,
            warmup_steps=0,
            ema_halflife_images=10_100_000.0,  # .99993 a step
            dtype="float32",
        )
        levels = dict(ct=(2, 150), ict=(10, 1280))
    nets = {name: dict(network, dropout=rate) for name, rate in dropout.items()}
    options = {k: dict(first_levels=s0, last_levels=s1) for k, (s0, s1) in levels.items()}
    # Each flow map is sampled in one step, unless its ``sampling`` says otherwise.
    cd = dict(objective="cd", teacher="edm", network=nets["edm"], training=published)
    ct = dict(objective="ct", options=options["ct"], network=nets["ct"], training=published)
    ict = dict(objective="ict", options=options["ict"], network=nets["ict"], training=improved)
    rc.add_models(
        config,
        edm=rc.network_model("ncsnpp", network=nets["edm"]),
        edm_seed1=rc.network_model("ncsnpp", seed=1, network=nets["edm"]),
        cd=rc.network_model("ncsnpp", preconditioning="consistency", **cd),
        ct=rc.network_model("ncsnpp", preconditioning="consistency", **ct),
        ict=rc.network_model("ncsnpp", preconditioning="consistency", **ict),
    )
    rc.use_baselines(config)
    return config
