"""Capacity against dataset size: the paper's central figure (arXiv 2310.05264, figures 2 and 4).

    python -m reprojax.main --config=configs/grid.py         # CIFAR-10, a cluster or a pod
    python -m reprojax.main --config=configs/grid.py:lab     # Fashion-MNIST at 8x8, a laptop
    python -m reprojax.main --config=configs/grid.py:gpu     # the same at 32x32, one GPU

Every pair of capacities at every number of training images, from the same noises through the same
solver, with the closed-form optimum and the Gaussian of each training set. Each capacity has a seed
of its own, so that no two share the noises of training. :lab and :gpu add a second seed and a
second, disjoint training set (arXiv 2310.02557). :lab keeps weights along training (arXiv
2505.17638), and :gpu has the paper's 10,000 noises.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab and :gpu need Debian's
package dataset-fashion-mnist.
Cost: DDPM++ of width 64, 128 and 256, ten training sets of 64 to 32,768 images, 50 M images each:
3.3e20 FLOP, about 234 hours of one H100 at 40 % of its bfloat16 peak. ``--dry_run`` prints it for
any change; docs/many-machines.md says how many workers share one folder. :lab and :gpu:
docs/experiments.md.
Expect: RP between capacities high at both ends and low between; GL from 0 to 1, later for larger
networks; RP with the optimum falling from about one half to 0.
"""

from reprojax import config as rc

WIDTHS = (64, 128, 256)
SIZES = tuple(2**k for k in range(6, 16))
LAB_WIDTHS = (4, 12, 32)
LAB_SIZES = (8, 32, 64, 128, 256, 512, 2048, 16_384)
TWICE = 4  # the width of the lab's networks with a second seed and a second training set
AGAIN = 3  # the seed of both


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab", "gpu"])
    return {"": _paper, "lab": _lab, "gpu": _gpu}[scale]()


def _paper():
    config = rc.default_config("grid")
    rc.use_cifar10(config, "configs/grid.py:lab")
    config.training.update(
        steps=390_625, warmup_steps=78_125, decay="none", ema_halflife_images=500_000.0
    )
    network = dict(multipliers=(2, 2, 2), num_blocks=4, dropout=0.13)
    vp = dict(kernel="vp", preconditioning="vp_eps", objective="eps")
    for n in SIZES:
        networks = {
            f"ddpmpp{width}_n{n}": rc.network_model(
                "unet", n_train=n, seed=seed, network=dict(width=width, **network), **vp
            )
            for seed, width in enumerate(WIDTHS)
        }
        rc.add_models(config, **networks, **_closed_forms(n))
    rc.add_analysis(config, "grid", cells=tuple(config.models), n=config.noise.n)
    return config


def _lab():
    config = _fashion("grid_lab", size=8, n_heldout=2000, noises=512)
    config.loop.update(snapshots=12, checkpoint_every=1000)
    followed = tuple(f"unet{w}_n{n}" for w in LAB_WIDTHS[1:] for n in LAB_SIZES)
    rc.add_analysis(config, "along_training", cells=followed, n=256)
    return config


def _gpu():
    config = _fashion("grid_gpu", size=32, n_heldout=10_000, noises=10_000)
    config.loop.update(checkpoint_every=4000, pack="auto")
    config.sampling.batch_size = 1000
    return config


def _fashion(name, *, size, n_heldout, noises):
    config = rc.default_config(name)
    rc.use_fashion_lab(config, size=size, n_train=max(LAB_SIZES), n_heldout=n_heldout)
    config.data.part = "A"
    config.noise.n = noises
    config.training.update(steps=4000, learning_rate=2e-3)
    network = dict(multipliers=(1, 2), num_blocks=1, attention=(), dropout=0.0)
    for n in LAB_SIZES:
        unet = {w: dict(n_train=n, network=dict(width=w, **network)) for w in LAB_WIDTHS}
        networks = {
            f"unet{width}_n{n}": rc.network_model("unet", seed=seed, **unet[width])
            for seed, width in enumerate(LAB_WIDTHS)
        }
        again = dict(seed=AGAIN, **unet[TWICE])
        networks[f"unet{TWICE}_n{n}_again"] = rc.network_model("unet", **again)
        networks[f"unet{TWICE}_n{n}_B"] = rc.network_model("unet", part="B", **again)
        rc.add_models(config, **networks, **_closed_forms(n))
    rc.add_analysis(config, "grid", cells=tuple(config.models), n=config.noise.n)
    return config


def _closed_forms(n):
    return {f"{form}_n{n}": rc.closed_form(form, n_train=n) for form in ("optimum", "gaussian")}
