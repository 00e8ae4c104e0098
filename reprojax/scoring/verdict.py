"""Whether a model generalizes or memorizes, as its scores say."""

from __future__ import annotations

from reprojax.scoring.views import ModelView

MOST = 0.5  # "most" noises or images: more than half of them
GL_SLACK = 0.05  # a generalizing model's GL may lie this much below that of held-out images
FEW_COPIES = 0.05  # share of memorized samples up to which a model can count as generalizing
FAR = 10.0  # Fréchet distance in units of the reference from which samples are not like the data


def model_state(view: ModelView) -> str | None:
    """Judges one model: returns "memorizing", "between", "generalizing", "far" (from the
    data) or "unjudged", or None where nothing was measured.

    A memorized share above one half proves copies by itself (arXiv 2310.02664). GL is judged only
    against the GL of held-out images, and noise, which also has GL 1, is kept out by the Fréchet
    distance.
    """
    copies = view.memorized.value if view.memorized else 0.0
    if copies > MOST:
        return "memorizing"
    if view.gl is None:
        return None
    value, reference = view.gl.value, view.gl.reference
    if reference is None:
        return "unjudged"
    if value < MOST * reference:
        return "memorizing"
    if value < reference - GL_SLACK or copies > FEW_COPIES:
        return "between"
    frechet = view.frechet
    if frechet and frechet.reference is not None and frechet.value > FAR * frechet.reference:
        return "far"
    return "generalizing"
