"""The defaults that the denoisers of this package inherit."""

from __future__ import annotations

from typing import Any

from jax.sharding import Mesh

from reprojax.runtime.mesh import replicated


class Denoiser:
    """A base class with the members of a DenoiseFn other than ``__call__``.

    Attributes:
        is_flow_map: Whether the function is a FlowMapFn; False.
    """

    is_flow_map = False

    def placement(self, mesh: Mesh) -> Any:
        """Returns the sharding that keeps all leaves whole on every device of a mesh."""
        return replicated(mesh)
