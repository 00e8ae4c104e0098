"""The analyses that a study can ask for, and their settings; one frozen dataclass each."""

from __future__ import annotations

from dataclasses import dataclass, fields

from reprojax.errors import InputError, choices, require_choice, require_number
from reprojax.sampling.solvers.adaptive import ADAPTIVE
from reprojax.sampling.solvers.table import ALIASES, SOLVERS
from reprojax.scoring.published import PAPER_MODELS

DENOISER_SOLVERS = tuple(name for name, solver in SOLVERS.items() if not solver.flow_map)


@dataclass(frozen=True)
class AnalysisSpec:
    """Base of the analyses' settings.

    Args:
        cells: names of the study's cells that it looks at.
        n: how many of the study's noises (or images) it uses, from the first on.
    """

    cells: tuple[str, ...] = ()
    n: int = 256

    def __post_init__(self):
        if not self.cells:
            raise InputError("cells", self.cells, "one or more names of models")
        require_number("n", self.n, at_least=2)


@dataclass(frozen=True)
class SolverSweep(AnalysisSpec):
    """Every solver at every cost against the limit that all of them have.

    Args:
        solvers: names of solvers; stochastic ones for contrast.
        nfe: costs to spend; each solver takes the most steps that cost no more.
        limit_nfe: cost of the limit, spent on Heun steps.
        tolerances: rtol and atol of adaptive solvers, in place of costs.
    """

    solvers: tuple[str, ...] = DENOISER_SOLVERS
    nfe: tuple[int, ...] = (6, 10, 14, 20, 30, 50, 100)
    limit_nfe: int = 1000
    tolerances: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)

    def __post_init__(self):
        super().__post_init__()
        for name in self.solvers:
            require_choice("solvers", name, [*DENOISER_SOLVERS, *ALIASES, *ADAPTIVE])
        for nfe in (*self.nfe, self.limit_nfe):
            require_number("nfe", nfe, at_least=1)
        for tolerance in self.tolerances:
            require_number("tolerances", tolerance, above=0)


@dataclass(frozen=True)
class Encoding(AnalysisSpec):
    """Images to noises and back: round trips, and decoding with another model than encoded.

    Args:
        num_steps: solver steps each way, ended at sigma_min.
    """

    num_steps: int = 200

    def __post_init__(self):
        super().__post_init__()
        require_number("num_steps", self.num_steps, at_least=1)


@dataclass(frozen=True)
class JacobianRank(AnalysisSpec):
    """Rank of the denoiser's Jacobian at noisy held-out (or else training) images.

    Args:
        sigmas: noise levels.
        eta: share of the Frobenius norm that the rank's directions hold.
    """

    n: int = 16
    sigmas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 4.0, 10.0, 30.0)
    eta: float = 0.99

    def __post_init__(self):
        super().__post_init__()
        for sigma in self.sigmas:
            require_number("sigmas", sigma, above=0)
        require_number("eta", self.eta, at_least=0, below=1)


@dataclass(frozen=True)
class Ceiling(AnalysisSpec):
    """What another discretisation or another native range of noise changes in a closed form.

    Args:
        num_steps: the few Heun steps and the many that they are compared with.
        sigma_max: where kernels start; each is compared with the first, with the many steps.
    """

    num_steps: tuple[int, int] = (18, 800)
    sigma_max: tuple[float, ...] = (80.0, 100.0, 152.0)

    def __post_init__(self):
        super().__post_init__()
        for steps in self.num_steps:
            require_number("num_steps", steps, at_least=1)
        if len(self.num_steps) != 2:
            raise InputError("num_steps", self.num_steps, "two numbers, few and many")
        for sigma in self.sigma_max:
            require_number("sigma_max", sigma, above=0)


@dataclass(frozen=True)
class LocalScores(AnalysisSpec):
    """Samples of a network against those of a local score machine and other closed forms.

    Args:
        cells: the network first, on whose own training images the machine stands; then the cells
            to set beside it.
        calibrate_on: held-out images that the patch sizes are calibrated on.
        radii: patch radii to choose from; a patch has the side 2 r + 1.
        sigmas: noise levels to choose at.
        equivariant: whether patches are compared across positions.
    """

    n: int = 64
    calibrate_on: int = 16
    radii: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 8, 12, 15)
    sigmas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
    equivariant: bool = True

    def __post_init__(self):
        super().__post_init__()
        require_number("calibrate_on", self.calibrate_on, at_least=1)
        for radius in self.radii:
            require_number("radii", radius, at_least=0)
        for sigma in self.sigmas:
            require_number("sigmas", sigma, above=0)


@dataclass(frozen=True)
class SharedSolver(AnalysisSpec):
    """All pairs with the models' native samplers, and with the study's sampler for all.

    Args:
        cells: the models, in the order in which they are shown.
        ceiling: the two seeds of one model among them, or (); summaries leave the second one out.
        paper: per cell the model of arXiv 2310.05264 that it is set beside, "" where there is none;
            or () for no comparison.
    """

    n: int = 1024
    ceiling: tuple[str, ...] = ()
    paper: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if len(set(self.cells)) < max(2, len(self.cells)):
            raise InputError("cells", self.cells, "two or more different models")
        if self.ceiling and (len(self.ceiling) != 2 or len(set(self.ceiling)) != 2):
            raise InputError("ceiling", self.ceiling, "two seeds of one model, or nothing")
        for name in self.ceiling:
            require_choice("ceiling", name, self.cells)
        self._check_paper()

    def _check_paper(self) -> None:
        if self.paper and len(self.paper) != len(self.cells):
            raise InputError("paper", self.paper, f"{len(self.cells)} names, one for each cell")
        named = [name for name in self.paper if name]
        for name in named:
            require_choice("paper", name, PAPER_MODELS)
            if named.count(name) > 1:
                raise InputError("paper", name, "a model that no other cell is set beside")
        if any(c in self.ceiling[1:] and p for c, p in zip(self.cells, self.paper)):
            raise InputError("paper", self.paper, f"'' for the second seed, {self.ceiling[1]}")


@dataclass(frozen=True)
class Grid(AnalysisSpec):
    """Scores over capacity and number of training images: valley, crossings, disjoint parts.

    Args:
        cells: networks, told apart by what is recorded of them (network, images, part, seed), and
            the closed forms of their images.
        n: noises whose samples are sorted into memorized, spurious and generalized, and on which
            the two transitions are placed.
        memorized_share: share of memorized samples down to which a number of training images counts
            as memorized (effective model memorization, arXiv 2310.02664, which asks for .9).
    """

    n: int = 512
    memorized_share: float = 0.9

    def __post_init__(self):
        super().__post_init__()
        require_number("memorized_share", self.memorized_share, above=0, below=1)


@dataclass(frozen=True)
class AlongTraining(AnalysisSpec):
    """Scores at each snapshot of training: when models get good, and when they memorize.

    Args:
        cells: trained networks.
        memorized_share: share of memorized samples from which on a network counts as memorizing.
        quality: a network counts as good when its Fréchet distance to held-out images is at most
            this many times the lowest that it reaches.
    """

    memorized_share: float = 0.5
    quality: float = 1.1

    def __post_init__(self):
        super().__post_init__()
        require_number("memorized_share", self.memorized_share, above=0, below=1)
        require_number("quality", self.quality, above=1)


ANALYSES: dict[str, type[AnalysisSpec]] = {
    "solvers": SolverSweep,
    "encoding": Encoding,
    "jacobian": JacobianRank,
    "ceiling": Ceiling,
    "local": LocalScores,
    "shared_solver": SharedSolver,
    "grid": Grid,
    "along_training": AlongTraining,
}


def make_analysis(name: str, values: dict) -> AnalysisSpec:
    """The settings of an analysis, checked.

    Args:
        name: a key of `ANALYSES`.
        values: its fields.

    Raises:
        InputError: naming the field as ``analyses.<name>.<field>``.
    """
    require_choice("analyses", name, ANALYSES)
    spec = ANALYSES[name]
    names = [f.name for f in fields(spec)]
    for field, value in values.items():
        if field not in names:
            raise InputError(f"analyses.{name}.{field}", value, choices(names, field))
    try:
        return spec(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except InputError as error:
        raise error.under(f"analyses.{name}.") from error
