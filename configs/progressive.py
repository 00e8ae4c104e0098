"""Progressive distillation (arXiv 2202.00512) on CIFAR-10: a path in 8, 4 and 1 steps.

    python -m reprojax.main --config=configs/progressive.py       # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/progressive.py:lab   # Fashion-MNIST at 16x16, a laptop

A teacher in the paper's parametrisation (cosine schedule, v), with a second seed, and one chain of
students: to 8 steps of DDIM, from there to 4, from there to 1. Unlike in the paper the steps are
EDM's noise levels, the rate is constant where the paper's falls to zero from twice as much, and the
students have their teacher's dropout (none and .2 in the paper), since they have its network.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 51.6 M parameters, 35.3 GFLOP forward; 102 M images per teacher: 1.1e19 FLOP, about 8 hours on
one H100 at 40 % of its bfloat16 peak; 64, 6.4 and 26 M images for the students, 1.7e19 FLOP in all
with the calls of their teachers, as ``--dry_run`` counts.
:lab: 3,000 steps of 64 images per teacher, 500 for each halving.
Expect: in 8 and in 4 steps the teacher's image almost always; in 1 step still most of them.
Compare with the teacher's two seeds.
"""

from reprojax import config as rc

# The DDIM steps of the first and of the last student. The paper's first student has 4,096.
STUDENTS = {"": ((4096, 8), (4, 4), (2, 1)), "lab": ((64, 8), (4, 4), (2, 1))}


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    if scale == "lab":
        config = rc.default_config("progressive_lab")
        rc.use_fashion_lab(config)
        network = rc.LAB_UNET
        config.training.update(steps=3000, learning_rate=2e-3)
        halving = {8: 500, 4: 500, 1: 500}
        student = dict(decay="none", learning_rate=5e-4)
    else:
        config = rc.default_config("progressive")
        rc.use_cifar10(config, "configs/progressive.py:lab")
        network = dict(
            width=256, multipliers=(1, 1, 1), num_blocks=3, attention=(16, 8), dropout=0.1
        )
        config.training.update(
            steps=800_000,
            learning_rate=2e-4,
            warmup_steps=1000,
            decay="none",
            ema_halflife_images=887_000.0,  # .9999 a step
        )
        halving = {8: 50_000, 4: 50_000, 1: 100_000}
        # The paper has no average here. A short one compensates for the constant rate.
        student = dict(learning_rate=5e-5, ema_halflife_images=100_000.0)
    cosine = dict(kernel="cosine", preconditioning="vp_v", network=network)
    rc.add_models(
        config,
        teacher=rc.network_model("unet", objective="v", **cosine),
        teacher_seed1=rc.network_model("unet", objective="v", seed=1, **cosine),
    )
    teacher = "teacher"
    for first, last in STUDENTS[scale]:
        stages = (first // last).bit_length()
        fields = dict(
            objective="progressive",
            options=dict(first_steps=first, last_steps=last),
            teacher=teacher,
            training=dict(steps=stages * halving[last], **student),
            sampling=dict(solver="ddim", num_steps=last, end="sigma_min"),
        )
        teacher = f"steps{last}"
        rc.add_models(config, **{teacher: rc.network_model("unet", **fields, **cosine)})
    rc.use_baselines(config)
    return config
