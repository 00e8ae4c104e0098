"""Installs reprojax: ``pip install -e '.[test]'``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"$', (HERE / "reprojax" / "__init__.py").read_text("utf-8"), re.M
).group(1)
README = HERE / "README.md"

setup(
    name="reprojax",
    version=VERSION,
    description="How reproducible and how general is a diffusion model? Train, sample and score.",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The reprojax authors",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["reprojax", "reprojax.*"]),
    package_data={"reprojax": ["py.typed"], "reprojax.report": ["*.j2"]},
    zip_safe=False,
    # Lower bounds only. jaxlib and its accelerator plugins are the user's choice: `pip install
    # "jax[cuda13]"` or `"jax[tpu]"` beside this package.
    install_requires=[
        "clu>=0.0.12",
        "diffrax>=0.7",
        "filelock>=4",
        "flax>=0.12",
        "importlib_resources",  # tensorflow-datasets imports it without declaring it
        "absl-py>=2.1",
        "jax>=0.8",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.20",
        "pillow>=10.3",
        "rich>=13.7",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "tensorflow-datasets>=4.9.9",
    ],
    extras_require={
        "bench": ["torch"],
        "colab": ["ipykernel", "jupyter", "nbclient"],
        "interop": ["diffusers>=0.33", "torch>=2.6"],
        "launch": ["submitit>=1.5"],
        "tensorboard": ["tensorboardX"],
        "tensorflow": ["tensorflow"],  # only to prepare TFDS sets once, never to read them
        "test": ["pytest", "pytest-xdist", "pyyaml", "ruff", "submitit>=1.5"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    keywords="diffusion models, reproducibility, generalization, memorization, JAX, Flax",
)
