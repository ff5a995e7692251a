"""What the error messages of this package share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def shorten(value: object, width: int = 80) -> str:
    """
    :param value: anything a user passed
    :param width: the greatest number of characters
    :return: a one-line description of the value for an error message
    """
    if isinstance(value, (str, Path)):
        text = repr(str(value))
    elif value is None or isinstance(value, (bool, int, float, np.number)):
        text = str(value)
    else:  # the repr of an array or a model runs over pages
        text = f"an object of type {type(value).__module__}.{type(value).__qualname__}"
    if len(text) <= width:
        return text
    # the end of a path tells more than its start
    return "'..." + text[4 - width :] if isinstance(value, Path) else text[: width - 3] + "..."


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None, cure: str = "") -> int:
    """
    :param name: the argument's name, for the message
    :param value: what the user passed
    :param minimum: the least value allowed
    :param maximum: the greatest value allowed, if there is one
    :param cure: what the user should do, for the message
    :return: the value as a Python integer
    :raises TypeError: if it is not an integer (a bool is not)
    :raises ValueError: if it is out of range
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}={shorten(value)}: expected an integer, got {type(value).__name__}. {cure}".strip())
    if value < minimum or (maximum is not None and value > maximum):
        bounds = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise ValueError(f"{name}={shorten(value)}: expected an integer {bounds}. {cure}".strip())
    return int(value)


def check_number(name: str, value: object, minimum: float, cure: str = "") -> float:
    """
    :param name: the argument's name, for the message
    :param value: what the user passed
    :param minimum: the least value allowed
    :param cure: what the user should do, for the message
    :return: the value as a Python float, which may be infinite
    :raises TypeError: if it is not a real number (a bool is not)
    :raises ValueError: if it is less, or NaN
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}={shorten(value)}: expected a number, got {type(value).__name__}. {cure}".strip())
    if not value >= minimum:
        raise ValueError(f"{name}={shorten(value)}: expected a number of at least {minimum}. {cure}".strip())
    return float(value)


@contextmanager
def reading(path: object, what: str) -> Iterator[None]:
    """
    Turn whatever a library raises about a broken file into a ``ValueError`` that names the file.

    :param path: the file, or the object, that is being read
    :param what: what it should be
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"expert_data {shorten(path)}: no such file") from error
    except Exception as error:  # pyarrow, zipfile, numpy and json between them raise more than a dozen kinds
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
        raise ValueError(
            f"expert_data {shorten(path)}: cannot be read as {what}; the file is truncated, damaged or of another kind "
            f"({reason}). Copy or download it again"
        ) from error
