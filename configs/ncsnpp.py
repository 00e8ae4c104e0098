"""NCSN++ (arXiv 2011.13456) on CIFAR-10 under VE, VP and sub-VP, at the scale of the paper.

    python -m reprojax.main --config=configs/ncsnpp.py         # CIFAR-10, an accelerator
    python -m reprojax.main --config=configs/ncsnpp.py:lab     # Fashion-MNIST at 16x16, a laptop

VE three times: in its own parametrisation at continuous and at 1,000 discrete levels, and with
EDM's scaling of the network's input and output (arXiv 2206.00364) under the same levels and loss.
Data: cifar-10-python.tar.gz, its path in ``--config.data.path``; :lab needs Debian's package
dataset-fashion-mnist.
Cost: 56.4 M parameters; 166 M images per model at 42.8 GFLOP forward each: 2.1e19 FLOP, about 15
hours on one H100 at 40 % of its bfloat16 peak, times six models. ``--dry_run`` prints it for any
change. :lab: 2,500 steps of 64 images per model.
Expect: at paper scale RP between kernels close to that of two seeds of one model. At :lab scale the
budget is too small for VE in its own parametrisation, but not for "ncsnpp_ve_edm" (as in
configs/kernels.py).
"""

from reprojax import config as rc

# model: (kernel, preconditioning, objective, embedding, half-life of the average in images).
# The Fourier features read log sigma, which is VE's time; VP's 1,000 steps are read by sines and
# cosines of falling frequency. The averages are the paper's best, .999 a step for VE, .9999 for VP.
MODELS = {
    "ncsnpp_ve": ("ve", "ve", "eps", "fourier", 88_700.0),
    "ncsnpp_ve_discrete": ("ve", "ve", "eps_discrete", "fourier", 88_700.0),
    "ncsnpp_ve_edm": ("ve", "edm", "eps", "fourier", 88_700.0),
    "ncsnpp_vp": ("vp", "vp_eps", "eps", "positional", 887_000.0),
    "ncsnpp_subvp": ("subvp", "subvp_eps", "eps", "positional", 887_000.0),
}


def get_config(scale: str = ""):
    rc.require_scale(scale, ["lab"])
    lab = scale == "lab"
    if lab:
        config = rc.default_config("ncsnpp_lab")
        rc.use_fashion_lab(config)
        network = rc.LAB_UNET
        config.training.update(steps=2500, learning_rate=2e-3)
    else:
        config = rc.default_config("ncsnpp")
        rc.use_cifar10(config, "configs/ncsnpp.py:lab")
        network = dict(width=128, multipliers=(2, 2, 2), num_blocks=4, dropout=0.1)
        config.training.update(steps=1_300_000, learning_rate=2e-4, warmup_steps=5000, decay="none")
    # The levels that every model was trained at: VE begins at .02.
    config.sampling.sigma_min = 0.02
    for name, (kernel, preconditioning, objective, embedding, halflife) in MODELS.items():
        fields = dict(
            kernel=kernel,
            preconditioning=preconditioning,
            objective=objective,
            network=dict(embedding=embedding, **network),
            training={} if lab else dict(ema_halflife_images=halflife),
        )
        rc.add_models(config, **{name: rc.network_model("ncsnpp", **fields)})
        if name == "ncsnpp_ve_edm":
            seed1 = rc.network_model("ncsnpp", seed=1, **fields)
            rc.add_models(config, ncsnpp_ve_edm_seed1=seed1)
    rc.use_baselines(config)
    return config
