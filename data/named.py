"""A user's own code by its name: module:name, found in the working directory or where Python finds modules."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


class NamedError(ValueError):
    """The user's own code cannot be used. The message is one sentence."""


def named(spec: str) -> Callable[..., Any]:
    """The function or class that ``spec`` names, as in ``my_rules:Patient``.

    Raises:
        NamedError: another form, no such module or name, an error in the module, or something that cannot be called.
    """
    module, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise NamedError(f"{spec!r} received, module:name expected, such as my_rules:Patient for my_rules.py")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise NamedError(f"{spec}: there is no module {error.name} in {os.getcwd()} or on Python's path") from error
        raise NamedError(f"{spec}: {failure(error)}") from error
    except Exception as error:  # whatever the user's module raises
        raise NamedError(f"{spec}: {failure(error)}") from error
    found = getattr(loaded, name, None)
    if found is None:
        raise NamedError(f"{spec}: module {module} has no {name}")
    if not callable(found):
        raise NamedError(f"{spec} is of type {type(found).__name__}, a function or a class expected")
    return found  # type: ignore[no-any-return]


def failure(error: BaseException) -> str:
    """An error of the user's own code in a line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}{where}"
