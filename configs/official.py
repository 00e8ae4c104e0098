"""Published checkpoints, and your own beside them, from one noise bank.

    python -m reprojax.interop convert --from edm --in edm-cifar10-32x32-uncond-vp.pkl --out w/edm
    python -m reprojax.interop convert --from diffusers --in ddpm-cifar10-32 --out w/ddpm
    python -m reprojax.interop export --weights runs/ddpmpp/cells/x/weights.safetensors --out w/own
    python -m reprojax.main --config=configs/official.py:edm=w/edm,ddpm=w/ddpm,own=w/own

Data: cifar-10-python.tar.gz, its path in ``--config.data.path``, for GL, thresholds and the
Gaussian; for networks of other images another ``--config.data.source``.
Cost: no training; 35 evaluations of each network for each of 10,000 noises, hours of one GPU.
Expect: RP of .8 to .9 between official models of CIFAR-10 with the paper's descriptor (arXiv
2310.05264, figure 6); not yet run with the published weights, which no package holds.
"""

from reprojax import config as rc
from reprojax.errors import InputError


def get_config(models: str = ""):
    config = rc.default_config("official")
    rc.use_cifar10(config, "configs/families.py:lab")
    for item in models.split(","):
        name, equals, folder = item.partition("=")
        if not (name.isidentifier() and equals and folder):
            requirement = "must be NAME=FOLDER, a folder that reprojax.interop wrote"
            raise InputError("config argument", item, requirement)
        rc.add_models(config, **{name: rc.imported_model(folder)})
    rc.add_models(config, gaussian=rc.closed_form("gaussian"))
    return config
