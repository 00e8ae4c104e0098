"""Errors that a user can act on, each with the exit code that the command line gives it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class ReprojaxError(Exception):
    """Base of the errors that end a command with one line and their own exit code."""

    exit_code = 1


class InputError(ReprojaxError):
    """A mistake in what the user gave. Exit code 2.

    The message reads ``sampling.num_steps=0: must be at least 1``.

    Args:
        field: The option, config field or file that is wrong, e.g. ``"sampling.num_steps"``.
        value: What was given, or None where a value would say nothing.
        requirement: What must hold, or what to do about it. It follows the colon: begin with
            "must", or write a sentence of its own.
    """

    exit_code = 2

    def __init__(self, field: str, value: object, requirement: str):
        self.field, self.value, self.requirement = field, value, requirement
        given = "" if value is None else f"={one_line(repr(value))}"
        super().__init__(f"{field}{given}: {one_line(requirement, 2000)}")

    def under(self, prefix: str) -> InputError:
        """Returns the same error for a field inside of another, e.g. under ``"models.a."``."""
        return InputError(prefix + self.field, self.value, self.requirement)


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
    """Returns a requirement that lists the allowed names, and the one nearest to ``value``."""
    names = sorted(allowed)
    if not names:
        return "must be left out"
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"must be one of {', '.join(names)}{hint}"


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
    limits = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
    limits = limits if math.isfinite(value) else ["finite", *limits]
    raise InputError(field, value, "must be " + " and ".join(limits))


def require_seed(field: str, value: int) -> None:
    """Raises InputError unless ``value`` is a seed: PRNG keys take 32 bits."""
    if not 0 <= value < 2**32:
        raise InputError(field, value, "must be at least 0 and below 2**32")


def require_choice(field: str, value: object, allowed: Iterable[str]) -> None:
    """Raises InputError unless ``value`` is one of ``allowed``."""
    allowed = list(allowed)
    if value not in allowed:
        raise InputError(field, value, choices(allowed, value))
