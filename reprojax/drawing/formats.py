"""Numbers as texts, the same in the terminal, in the figures and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

MISSING = "–"


def share(value: float | None) -> str:
    """Returns a share without its leading zero: two digits, three where two would hide it.

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


def signed(value: float) -> str:
    """Returns a share that may be negative, as r² may: ``−.20``."""
    return share(value) if value >= 0 else f"−{share(-value)}"


def bound(value: float) -> str:
    """Returns a share rounded up, so that the value is at most the text."""
    digits = 3 if value < 0.01 else 2
    return share(min(1.0, math.ceil(round(value * 10**digits, 6)) / 10**digits))


def distance(value: float | None) -> str:
    """Returns a distance with three significant digits, without exponent below a million."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 100 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def percent(value: float | None) -> str:
    """Returns a share as whole percent; what is not 0 but rounds to it reads ``<1 %``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 0 < value < 0.005:
        return "<1 %"
    if 0.995 <= value < 1:
        return ">99 %"
    return f"{100 * value:.0f} %"


def with_interval(value: float | None, ci: Sequence[float] | None = None) -> str:
    """Returns a share with its 95 % interval, ``.61 [.58, .64]``; without one, it alone."""
    text = share(value)
    if ci is None or text == MISSING:
        return text
    return f"{text} [{share(ci[0])}, {share(ci[1])}]"


def span(values: Iterable[float | None], fmt: Callable[[float], str] = share) -> str:
    """Returns the range of some values, ``.61–.75``, or the one text that all of them have."""
    values = [v for v in values if v is not None and math.isfinite(v)]
    if not values:
        return MISSING
    low, high = fmt(min(values)), fmt(max(values))
    if low == high:
        return low
    if low.endswith(" %") and high.endswith(" %"):
        low = low.removesuffix(" %")
    return f"{low}–{high}"


def count(value: int | None) -> str:
    """Returns an integer with its thousands marked, ``32,768``."""
    return MISSING if value is None else f"{value:,}"


def params(value: int | None) -> str:
    """Returns a number of parameters, ``35.7 M``."""
    if value is None:
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:#.3g}".rstrip(".") + f" {unit}"
    return str(value)
