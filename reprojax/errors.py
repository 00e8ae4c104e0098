"""The errors that a user can act on. Each class has the exit code that the command ends with."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class ReprojaxError(Exception):
    """The base class of errors that end a command with one line on stderr and an exit code."""

    exit_code = 1


class InputError(ReprojaxError):
    """An option, config field or file has a value that cannot be used. Exit code 2.

    The message has the form ``sampling.num_steps=0: must be at least 1``.

    Args:
        field: The name of the option, config field or file, e.g. ``"sampling.num_steps"``.
        value: The value that the user gave. With None the message names the field alone.
        requirement: The condition that the value must meet, beginning with "must", or a sentence
            that tells the user what to do.
    """

    exit_code = 2

    def __init__(self, field: str, value: object, requirement: str):
        self.field, self.value, self.requirement = field, value, requirement
        shown_value = "" if value is None else f"={one_line(repr(value))}"
        super().__init__(f"{field}{shown_value}: {one_line(requirement, 2000)}")

    def under(self, prefix: str) -> InputError:
        """Returns this error with ``prefix``, e.g. ``"models.a."``, before the field's name."""
        return InputError(prefix + self.field, self.value, self.requirement)


class DivergedError(ReprojaxError):
    """A loss or a gradient is no longer finite. Exit code 3."""

    exit_code = 3


class FailedCellsError(ReprojaxError):
    """All cells of a study are finished except those that failed. Exit code 4."""

    exit_code = 4


class LostClaimError(ReprojaxError):
    """Another worker has taken over the claim, so this worker must not write there any more."""


class LostPeerError(ReprojaxError):
    """Another process of the same job did not start or no longer answers. Exit code 1."""


class EndedPeerError(ReprojaxError):
    """Another process of the same job ended with an error.

    Args:
        line: The error message of that process.
        code: The exit code of that process. This process ends with the same code.
    """

    def __init__(self, line: str, code: int):
        self.exit_code = code
        super().__init__(line)


class InterruptedRunError(ReprojaxError):
    """SIGINT or SIGTERM stopped the run; the same command resumes it. Exit code 130."""

    exit_code = 130


def one_line(value: object, limit: int = 160) -> str:
    """Returns the text of ``value`` on one line of at most ``limit`` characters.

    Runs of white space become one space. A value that is not a string is represented by ``repr``.
    """
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def choices(allowed: Iterable[str], value: object = None) -> str:
    """Returns a requirement that lists the allowed names and suggests the one nearest to ``value``.

    Without any allowed name the requirement is "must be left out".
    """
    names = sorted(allowed)
    if not names:
        return "must be left out"
    matches = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    hint = f"; did you mean {matches[0]!r}?" if matches else ""
    return f"must be one of {', '.join(names)}{hint}"


def require_number(
    field: str,
    value: float,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Raises InputError unless ``value`` is finite and within the bounds.

    Args:
        field: The name that the error mentions.
        value: The number to check.
        above: The exclusive lower bound.
        at_least: The inclusive lower bound.
        below: The exclusive upper bound.
    """
    if math.isfinite(value) and value > above and value >= at_least and value < below:
        return
    bounds = {"above": above, "at least": at_least, "below": below}
    limits = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
    limits = limits if math.isfinite(value) else ["finite", *limits]
    raise InputError(field, value, "must be " + " and ".join(limits))


def require_seed(field: str, value: int) -> None:
    """Raises InputError unless ``value`` is a seed of 32 bits, as JAX's PRNG keys need."""
    if not 0 <= value < 2**32:
        raise InputError(field, value, "must be at least 0 and below 2**32")


def require_choice(field: str, value: object, allowed: Iterable[str]) -> None:
    """Raises InputError unless ``value`` is one of ``allowed``."""
    allowed = list(allowed)
    if value not in allowed:
        raise InputError(field, value, choices(allowed, value))
