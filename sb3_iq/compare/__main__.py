"""
Compares imitation learning algorithms on your environment: the same demonstrations, budget and evaluation for all.

Rows are written as runs end, and the same command goes on where it stopped. It exits with 2, before the first run, if an
argument does not fit, and with 1 if a run failed.
"""

import argparse
import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sb3_iq.compare.algorithms import DESCRIPTIONS, WORDS
from sb3_iq.compare.comparison import N_EVAL_EPISODES, describe
from sb3_iq.compare.settings import BASELINES
from sb3_iq.demonstrations.errors import shorten
from sb3_iq.environments import env_kwargs_of

# Options that are not called as the argument of `compare` that they set
OPTIONS = {"n_jobs": "--jobs", "n_eval_episodes": "--eval-episodes", "baselines_file": "--baselines"}


def make_parser() -> argparse.ArgumentParser:
    """
    :return: of the command line
    """
    names = "\n".join(f"  {name:16}{text.replace('`', '')}" for name, text in DESCRIPTIONS.items())
    words = ", ".join(f"{word} ({', '.join(found)})" for word, found in WORDS.items() if len(found) > 1)
    parser = argparse.ArgumentParser(
        prog="python -m sb3_iq.compare",
        description=__doc__,
        epilog=f"algorithms:\n{names}\nWords stand for several: {words}.\nA name may carry settings: iq:preset=paper",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--env", metavar="ID", help="the environment")
    parser.add_argument("--env-kwargs", nargs="+", default=[], metavar="KEY:VALUE", help="arguments of the environment")
    parser.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="PACKAGE", help="to import: they register environments"
    )
    parser.add_argument("--demos", metavar="SOURCE", help="a folder, file or name, as load_demonstrations takes it")
    parser.add_argument("--n-demos", nargs="+", type=int, default=[1, 3, 10], metavar="N", help="numbers of demonstrations")
    parser.add_argument("--algos", nargs="+", default=list(WORDS), metavar="ALGO", help=f"default: {' '.join(WORDS)}")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each kind (default 5)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="SEED")
    parser.add_argument(
        "--timesteps", type=int, default=20_000, metavar="N", help="environment steps of a run (default 20000)"
    )
    parser.add_argument("--eval-freq", type=int, metavar="N", help="steps between evaluations (default: a twentieth)")
    parser.add_argument(
        "--eval-episodes",
        type=int,
        default=N_EVAL_EPISODES,
        metavar="N",
        help=f"of each evaluation (default {N_EVAL_EPISODES})",
    )
    parser.add_argument("--expert-return", type=float, metavar="R", help="a score of 1 (default: the demonstrations' mean)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder, or that of the same comparison")
    parser.add_argument(
        "--baselines", type=Path, metavar="YML", help=f"settings of imitation's algorithms (default {BASELINES})"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed before")
    parser.add_argument("--report", type=Path, metavar="DIR", help="only make table, plot and page of the rows in this folder")
    where = parser.add_argument_group("where to run")
    where.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time on this machine (default 1)")
    where.add_argument("--ray-address", metavar="ADDRESS", help="a Ray cluster, e.g. auto or 10.0.0.1:6379")
    where.add_argument("--retries", type=int, default=2, metavar="N", help="of a run whose process or node died (default 2)")
    where.add_argument("--shard", metavar="I/N", help="the I-th of N parts, e.g. $SLURM_ARRAY_TASK_ID/16 with --array=1-16")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: the arguments, None for those of the command line
    :return: the exit status: 0, or 1 if a run failed. Wrong arguments exit with 2, as in argparse
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the runs' processes: small networks, several at a time
    from sb3_iq.compare.driver import compare, report
    from sb3_iq.compare.report import FILES
    from sb3_iq.compare.results import key_of

    try:
        if args.report is not None:
            print(report(args.report))
            return 0
        for name in ("env", "demos", "out"):
            if getattr(args, name) is None:
                parser.error(f"--{name} is required")
        rows = compare(
            args.env,
            args.demos,
            args.algos,
            args.n_demos,
            args.seeds,
            args.timesteps,
            args.out,
            first_seed=args.first_seed,
            eval_freq=args.eval_freq,
            n_eval_episodes=args.eval_episodes,
            n_jobs=args.jobs,
            ray_address=args.ray_address,
            retries=args.retries,
            shard=_shard(args.shard),
            retry_failed=args.retry_failed,
            expert_return=args.expert_return,
            baselines_file=args.baselines,
            env_kwargs=env_kwargs_of(args.env_kwargs),
            gym_packages=args.gym_packages,
        )
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.error(as_typed(str(error), [*inspect.signature(compare).parameters]))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    if args.shard is None:
        print(report(args.out))
        files = ("results.jsonl", *FILES)
        print(f"In {args.out}: {', '.join(name for name in files if (args.out / name).exists())}")
    failed = [row for row in rows if row["error"]]
    for row in failed:
        print(f"failed: {describe(*key_of(row))}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0


def as_typed(message: str, arguments: Sequence[str]) -> str:
    """
    :param message: of an error, which names arguments of :func:`~sb3_iq.compare.compare`
    :param arguments: their names
    :return: the same with the options of this command. A name that is also a word is an argument where the message begins
    """
    names = "|".join(name if "_" in name else rf"\A{name}(?=[=: ])" for name in arguments)

    def option(match: re.Match[str]) -> str:
        return OPTIONS.get(match[0], "--" + match[0].replace("_", "-"))

    return re.sub(rf"(?<![\w'/.])(?:{names})(?![\w'/])", option, message)


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal()):
        raise ValueError(f"--shard {shorten(text)}: expected I/N, e.g. 1/16")
    return int(first), int(last)


if __name__ == "__main__":
    sys.exit(main())
