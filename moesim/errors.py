"""Every error that moesim raises on purpose.

MoesimError
  InputError (also a ValueError)   the input was wrong: exit code 2
    ParameterError                 an argument of a function or a parameter of a strategy
    ScenarioError                  a scenario file, an override or a variant
    TraceError                     a recorded trace
    TooLargeError                  does not fit the simulated GPU or this machine
    OutputError                    the result cannot be written where asked
  RunError                         the run failed: exit code 1
    ConservationError              tokens, bytes or time were lost: a bug in moesim
    DeadlockError                  the engine stopped with work left
"""

from __future__ import annotations

from collections.abc import Iterable


class MoesimError(Exception):
    """Base of all errors of this package; its text is one line for the user."""


class InputError(MoesimError, ValueError):
    """The input was wrong."""


class ParameterError(InputError):
    """An argument is wrong: its name, what was found, and what would be right."""

    def __init__(self, argument: str, found: object, wanted: str) -> None:
        self.argument, self.found, self.wanted = argument, found, wanted
        super().__init__(f"{argument}: found {found!s:.60}, wanted {wanted}")

    def __reduce__(self) -> tuple[type[ParameterError], tuple[str, object, str]]:
        """Pickle by the three parts, for worker processes."""
        return type(self), (self.argument, self.found, self.wanted)


class ScenarioError(InputError):
    """A scenario is wrong; the text names file, line, field, what was found and what would be right."""


class TraceError(InputError):
    """A recorded trace is damaged or does not fit the scenario."""


class TooLargeError(InputError):
    """The scenario does not fit the GPU's memory or this machine's."""


class OutputError(InputError):
    """The result cannot be written to the folder that was asked for."""


class RunError(MoesimError):
    """The run failed although its input was right."""


class ConservationError(RunError):
    """A conservation law was broken, which is a bug in moesim."""


class DeadlockError(RunError):
    """The engine ended with operations that never ran; the text lists which GPUs wait."""


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, None if none is like it."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(str(name)[:100], known, n=1)), None)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: " (did you mean NAME?)", "" if no known name is like it."""
    found = nearest(name, known)
    return "" if found is None else f" (did you mean {found}?)"
