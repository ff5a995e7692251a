"""
Makes RL Zoo know the algorithm ``iq``.

RL Zoo has no way to announce an algorithm from outside, so that this runs at every start of Python (see ``sb3_iq_zoo.pth``
beside this package). It therefore imports nothing, and only notes which modules of ``rl_zoo3`` to complete once
somebody imports them. The environment variable ``SB3_IQ_ZOO=0`` switches it off.
"""

import os
import sys

_TARGETS = frozenset({"rl_zoo3.utils", "rl_zoo3.hyperparams_opt", "rl_zoo3.exp_manager"})


class _Finder:
    """On ``sys.meta_path``, before the finders that do the work."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname not in _TARGETS:
            return None
        for finder in sys.meta_path:
            spec = None
            if finder is not _Finder and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                _complete_after_import(spec)
                return spec
        return None


def _complete_after_import(spec):
    exec_module = getattr(spec.loader, "exec_module", None)

    def exec_and_complete(module):
        exec_module(module)
        try:
            from sb3_iq import zoo

            zoo.on_import(spec.name, module)
        except Exception as error:  # other algorithms are to work whatever happened to this package; a warning can be an error
            print(f"sb3-iq: --algo iq is not available: {type(error).__name__}: {error}", file=sys.stderr)

    try:
        # The instance, not its class: other modules keep their loader as it is
        spec.loader.exec_module = exec_and_complete
    except AttributeError:  # a loader of another kind that allows no new attributes: `python -m sb3_iq.zoo` is left
        pass


def install():
    """Called by the start-up files."""
    if os.environ.get("SB3_IQ_ZOO", "1") != "0" and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
