"""Seven families and more from one noise bank: figure 6 of arXiv 2310.05264.

    python -m reprojax.main --config=configs/families.py         # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/families.py:lab     # Fashion-MNIST at 16x16, a laptop

Architecture, framework, loss, kernel and sampler differ between the models as in the paper. Each
model has its native sampler (for the scores), and is sampled once more by one solver for all (the
analysis "shared_solver"), which separates differences of models from those of samplers.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: paper scale: ten networks, days of one H100; ``--dry_run`` prints it. :lab: about two hours of
two CPU cores (docs/experiments.md).
Expect: RP of .70 to .91 between families on CIFAR-10, .82 in the mean (the paper's figure 6),
chance near 0. Compare with two seeds of one model.
"""

import math

from reprojax import config as rc

# The noise levels between the intervals of the multistage model: our choice.
SPLITS = (0.5, 5.0)
# DPM-Solver's levels for the VP family: uniform in log sigma over the kernel's range.
VP_SAMPLING = dict(grid="log_sigma", sigma_min=0.01, sigma_max=150.0)

PAPER = dict(
    ddpm=dict(width=128, multipliers=(1, 2, 2, 2), num_blocks=2, attention=(16,), dropout=0.1),
    unet=dict(width=128, multipliers=(2, 2, 2), num_blocks=4, attention=(16,), dropout=0.13),
    multistage=dict(width=96, multipliers=(2, 2, 2), num_blocks=4, attention=(16,), dropout=0.13),
    uvit=dict(width=512, depth=12, num_heads=8, patch=2),
    steps=dict(teacher=390_625, distil=100_000, ict=400_000),
    rates=dict(uvit=2e-4, distil=1e-4, ict=1e-4),
    last_levels=1280,
    pd=(512, 4),
)
_UNET = dict(width=16, multipliers=(1, 2), num_blocks=1, attention=(), dropout=0.0)
LAB = dict(
    ddpm=_UNET,
    unet=_UNET,
    multistage=_UNET,
    uvit=dict(width=64, depth=2, num_heads=4, patch=2),
    steps=dict(teacher=2800, ddpm=3500, multistage=1600, uvit=5000, distil=600, ict=2000),
    rates=dict(uvit=3e-3, distil=1e-3, ict=1e-3),
    last_levels=160,
    pd=(16, 4),
)


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    s = LAB if scale == "lab" else PAPER
    config = rc.default_config("families_lab" if scale == "lab" else "families")
    if scale == "lab":
        rc.use_fashion_lab(config)
        config.noise.n = 1024
        config.training.learning_rate = 2e-3
    else:
        rc.use_cifar10(config, "configs/families.py:lab")
        config.training.update(warmup_steps=10_000, decay="none", ema_halflife_images=500_000.0)
    config.training.steps = s["steps"]["teacher"]
    rc.add_models(config, **_denoisers(s), **_distilled(s), **_consistency(s))
    rc.add_models(config, gaussian=rc.closed_form("gaussian"))
    rc.add_analysis(
        config,
        "shared_solver",
        cells=(*PAPERS_NAMES, "edm_seed1", "gaussian"),
        paper=(*PAPERS_NAMES.values(), "", ""),
        ceiling=("edm", "edm_seed1"),
        n=config.noise.n,
    )
    return config


# The name of each model in the paper's figure, or "".
PAPERS_NAMES = {
    "ddpm_vp": "DDPMv4",
    "ddpmpp_subvp": "DDPMv6",
    "ncsnpp_ve": "",
    "multistage": "Multistagev1",
    "edm": "EDMv1",
    "uvit_vp": "UViT",
    "ict": "CT",
    "cd": "",
    "progressive": "Progressivev1",
}


def _denoisers(s: dict) -> dict:
    """Returns the denoisers, each with the sampler of its paper."""
    steps = s["steps"]
    edm = dict(network=s["unet"])
    return dict(
        ddpm_vp=rc.network_model(
            "ddpm",
            kernel="ddpm",
            preconditioning="vp_eps",
            objective="eps_discrete",
            network=s["ddpm"],
            training=dict(steps=steps.get("ddpm")),
            sampling=dict(solver="dpm_solver_3", num_steps=15, **VP_SAMPLING),
        ),
        ddpmpp_subvp=rc.network_model(
            "unet",
            kernel="subvp",
            preconditioning="subvp_eps",
            objective="eps",
            network=s["unet"],
            sampling=dict(solver="heun", num_steps=25, **VP_SAMPLING),
        ),
        # With EDM's scaling: in VE's own parametrisation the input is x itself, up to 100 times the
        # data, which small budgets do not train (results/kernels).
        ncsnpp_ve=rc.network_model(
            "ncsnpp",
            kernel="ve",
            preconditioning="edm",
            objective="eps",
            network=s["unet"],
            sampling=dict(
                solver="heun", grid="log_sigma", sigma_min=0.02, sigma_max=100.0, num_steps=25
            ),
        ),
        multistage=rc.network_model(
            "multistage",
            network=dict(boundaries=[math.log(sigma) / 4 for sigma in SPLITS], **s["multistage"]),
            training=dict(steps=steps.get("multistage")),
            sampling=dict(solver="dpmpp_2m", num_steps=25),
        ),
        edm=rc.network_model("unet", **edm),
        edm_seed1=rc.network_model("unet", seed=1, **edm),
        uvit_vp=rc.network_model(
            "uvit",
            kernel="vp",
            preconditioning="vp_v",
            objective="v",
            network=s["uvit"],
            training=dict(steps=steps.get("uvit"), learning_rate=s["rates"]["uvit"]),
            sampling=dict(solver="dpmpp_2m", num_steps=25, **VP_SAMPLING),
        ),
    )


def _distilled(s: dict) -> dict:
    """Students of "edm": progressive (DDIM steps) and consistency distillation (one step)."""
    # float32: their targets are differences of nearby levels, which bfloat16 does not resolve.
    budget = dict(steps=s["steps"]["distil"], learning_rate=s["rates"]["distil"], dtype="float32")
    first, last = s["pd"]
    student = dict(teacher="edm", network=s["unet"], training=budget)
    return dict(
        cd=rc.network_model("unet", preconditioning="consistency", objective="cd", **student),
        progressive=rc.network_model(
            "unet",
            objective="progressive",
            options=dict(first_steps=first, last_steps=last),
            sampling=dict(solver="ddim", num_steps=last, end="sigma_min"),
            **student,
        ),
    )


def _consistency(s: dict) -> dict:
    """Consistency training without any teacher."""
    budget = dict(
        steps=s["steps"]["ict"], learning_rate=s["rates"]["ict"], grad_clip=0.0, dtype="float32"
    )
    return dict(
        ict=rc.network_model(
            "unet",
            preconditioning="consistency",
            objective="ict",
            options=dict(last_levels=s["last_levels"]),
            network=s["unet"],
            training=budget,
        )
    )
