"""Errors that a user can act on, each with the exit code that the command line gives it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class ReprojaxError(Exception):
    """Base of the errors that end a command with one line and their own exit code."""

    exit_code = 1


class InputError(ReprojaxError):
    """A user's mistake: which field, what it was and what is allowed. Exit code 2.

    Args:
        field: the option, config field or file that is wrong (``"sampling.num_steps"``).
        value: what it was.
        allowed: what would be right, as the end of a sentence ("at least 1").
    """

    exit_code = 2

    def __init__(self, field: str, value: object, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field}: {one_line(value)} is not usable; {one_line(allowed, 2000)}")


class DivergedError(ReprojaxError):
    """A loss or gradient stopped being finite. Exit code 3."""

    exit_code = 3


class FailedCellsError(ReprojaxError):
    """A study is finished but for cells that failed. Exit code 4."""

    exit_code = 4


class LostClaimError(ReprojaxError):
    """Another worker took over what this one was doing; it must not write there any more."""


class LostPeerError(ReprojaxError):
    """Another process of a job that runs on several is missing or was lost. Exit code 1."""


class EndedPeerError(ReprojaxError):
    """Another process of the job ended, for a reason of its own and with an exit code of its own.

    Args:
        line: what it said.
        code: its exit code, which becomes that of the whole job.
    """

    def __init__(self, line: str, code: int):
        self.exit_code = code
        super().__init__(line)


class InterruptedRunError(ReprojaxError):
    """SIGINT or SIGTERM arrived; what was done is saved and the same command resumes. Exit 130."""

    exit_code = 130


def one_line(value: object, limit: int = 160) -> str:
    """Folds white space and cuts the text of ``value`` so that it fits on one line."""
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def choices(allowed: Iterable[str], value: object = None) -> str:
    """Words a list of allowed names, the one nearest to ``value`` first when it is close."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(names)}"


def require_number(
    field: str,
    value: float,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Raises InputError unless ``value`` is finite and within the bounds that are given."""
    if math.isfinite(value) and value > above and value >= at_least and value < below:
        return
    bounds = {"above": above, "at least": at_least, "below": below}
    said = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
    said = said if math.isfinite(value) else ["finite", *said]
    raise InputError(field, value, "it must be " + " and ".join(said))


def require_seed(field: str, value: int) -> None:
    """Raises InputError unless ``value`` is a seed: PRNG keys take 32 bits."""
    if not 0 <= value < 2**32:
        raise InputError(field, value, "it must be at least 0 and below 2**32")


def require_choice(field: str, value: object, allowed: Iterable[str]) -> None:
    """Raises InputError unless ``value`` is one of ``allowed``."""
    allowed = list(allowed)
    if value not in allowed:
        raise InputError(field, value, choices(allowed, value))
