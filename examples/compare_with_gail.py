"""
IQ-Learn beside GAIL, AIRL, SQIL and behavioural cloning: the same demonstrations, the same budget, the same evaluation.

    python examples/compare_with_gail.py                                   # some minutes: what today's stack runs
    pip install ".[imitation,compare]"                                     # in another virtual environment, and there
    python examples/compare_with_gail.py --algos gail airl --out with_gail # GAIL and AIRL of imitation as well

``python -m sb3_iq.compare`` is the same with all its options.
"""

import argparse

from sb3_iq.compare import compare, report

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--env", default="CartPole-v1")
parser.add_argument("--demos", default="bundled:CartPole-v1", help="whatever load_demonstrations takes")
parser.add_argument("--n-demos", type=int, nargs="+", default=[1])
parser.add_argument("--algos", nargs="+", default=["iq", "bc", "sqil", "gail", "airl"])
parser.add_argument("--timesteps", type=int, default=5_000, help="GAIL and AIRL of imitation take ten times as many")
parser.add_argument("--seeds", type=int, default=1)
parser.add_argument("--eval-episodes", type=int, default=20)
parser.add_argument("--out", default="comparison")
args = parser.parse_args()

# Rows are in args.out/results.jsonl as runs end; run again, it goes on where it stopped
rows = compare(
    args.env,
    args.demos,
    args.algos,
    n_demos=args.n_demos,
    seeds=args.seeds,
    timesteps=args.timesteps,
    out=args.out,
    n_eval_episodes=args.eval_episodes,
    gym_packages=["seals"] if args.env.startswith("seals/") else [],
)
print(report(args.out))
print(f"{len(rows)} runs; the page is {args.out}/report.html")
