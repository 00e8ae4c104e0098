"""How numbers read: the same in the terminal, in the figures and on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

MISSING = "–"


def format_share(value: float | None) -> str:
    """A probability without its leading zero: two digits, three where two would hide it.

    So .0042 reads ``.004`` and .9971 reads ``.997``; only the ends read ``.00`` and ``1.00``.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if 0 < value < 0.0005:
        return "<.001"
    if 0.9995 <= value < 1:
        return ">.999"
    digits = 3 if 0 < value < 0.01 or 0.995 <= value < 1 else 2
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def format_bound(value: float) -> str:
    """A share rounded up, so that what is said to be at most this is."""
    digits = 3 if value < 0.01 else 2
    return format_share(min(1.0, math.ceil(round(value * 10**digits, 6)) / 10**digits))


def format_distance(value: float | None) -> str:
    """A distance to three significant digits, never in exponent form below a million."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 100 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def format_percent(value: float | None) -> str:
    """A share as whole percent; what is there but rounds to nothing reads ``<1 %``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 0 < value < 0.005:
        return "<1 %"
    if 0.995 <= value < 1:
        return ">99 %"
    return f"{100 * value:.0f} %"


def format_value(value: float | None, ci: Sequence[float] | None = None) -> str:
    """A share with its 95 % interval, ``.61 [.58, .64]``; without one, the share alone."""
    text = format_share(value)
    if ci is None or text == MISSING:
        return text
    return f"{text} [{format_share(ci[0])}, {format_share(ci[1])}]"


def format_span(values: Iterable[float], fmt=format_share) -> str:
    """The range of some values, ``.61–.75``, or the one text that all of them have."""
    values = [v for v in values if v is not None and math.isfinite(v)]
    if not values:
        return MISSING
    low, high = fmt(min(values)), fmt(max(values))
    if low == high:
        return low
    if low.endswith(" %") and high.endswith(" %"):
        low = low.removesuffix(" %")
    return f"{low}–{high}"


def format_count(value: int | None) -> str:
    """An integer with thousands marked, ``32,768``."""
    return MISSING if value is None else f"{value:,}"


def format_params(value: int | None) -> str:
    """A number of parameters, ``35.7 M``."""
    if value is None:
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:#.3g}".rstrip(".") + f" {unit}"
    return str(value)
