"""What the error messages of this package share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def shorten(value: object, width: int = 80) -> str:
    """
    :param value: anything a user passed
    :param width: the maximum number of characters
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


def cut(value: object, width: int = 80) -> str:
    """
    :param value: what prints well: a list of names, a space, a shape
    :param width: the maximum number of characters
    :return: its text in one line, without quotes around it
    """
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None, cure: str = "") -> int:
    """
    :param name: the argument's name, for the message
    :param value: what the user passed
    :param minimum: the minimum
    :param maximum: the maximum, if there is one
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
    :param minimum: the minimum
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


def check_flag(name: str, value: object) -> None:
    """
    :param name: the argument's name, for the message
    :param value: what the user passed
    :raises TypeError: if it is neither True nor False: the word "False" counts as true in Python
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` is {shorten(value)}: give True or False.")


def path_of(name: str, value: object) -> Path:
    """
    :param name: the argument's name, for the message
    :param value: what the user passed
    :return: the path, with the home folder in the place of ``~``
    :raises TypeError: if it is none
    :raises ValueError: if the system can't have it
    """
    if not isinstance(value, (str, Path)):
        raise TypeError(f"{name}={shorten(value)}: expected a path")
    try:
        path = Path(value).expanduser()
        if "\0" in path.name:
            raise ValueError("null character")
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}={shorten(value)}: is no path ({first_words(error)}). Give another") from error
    return path


@contextmanager
def reading(path: object, what: str) -> Iterator[None]:
    """
    Turn whatever a library raises about a file into an error that names the file and what is wrong with it.

    :param path: the file, or the object, that is being read
    :param what: what it should be
    :raises OSError: if the system refuses it: it is not there, not to be read by this user, or a folder
    :raises MemoryError: if it needs more memory than there is
    :raises ValueError: if it is damaged
    """
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"expert_data {shorten(path)}: not enough memory to read it as {what} ({first_words(error)}). Choose fewer "
            "episodes (n_trajectories), or memory-map a folder of Arrow files (max_memory_gb=0)"
        ) from error
    except OSError as error:
        kinds = [(kind, text) for kind, text in _SYSTEM_ERRORS.items() if isinstance(error, kind)]
        if not kinds:
            raise _damaged(path, what, error) from error
        kind, text = kinds[0]
        raise kind(f"expert_data {shorten(path)}: {text}") from error
    except Exception as error:  # pyarrow, zipfile, numpy and json between them raise more than a dozen kinds
        raise _damaged(path, what, error) from error


_SYSTEM_ERRORS = {
    FileNotFoundError: "no such file",
    PermissionError: "no permission to read it. Check the owner and the mode of the file and its folders",
    IsADirectoryError: "this is a folder, but a file is expected",
}


def _damaged(path: object, what: str, error: Exception) -> ValueError:
    return ValueError(
        f"expert_data {shorten(path)}: cannot be read as {what}; the file is truncated, damaged or of another kind "
        f"({first_words(error)}). Copy or download it again"
    )


def first_words(error: Exception) -> str:
    """
    :param error: an error that may run over a page
    :return: its kind and its first words
    """
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:200]


# Whether the package is on an index: until then its name there could be anybody's
RELEASED = False


def install_command(extra: str) -> str:
    """
    :param extra: an extra of this package
    :return: the command that installs it
    """
    return f'pip install "sb3-iq[{extra}]"' if RELEASED else f'pip install ".[{extra}]"'


def how_to_install(extra: str) -> str:
    """
    :param extra: an extra of this package
    :return: what to type to get it
    """
    return f"Install it: {'' if RELEASED else 'in a clone of the sb3-iq repository, '}{install_command(extra)}"
