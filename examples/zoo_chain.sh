#!/usr/bin/env bash
# From nothing to an imitator with commands alone: train an expert, record it, imitate it, and play the imitator.
# Needs pip install ".[zoo]". A few minutes on one core; in a folder of your own, as it writes logs/ and demos/:
#
#     bash zoo_chain.sh
#     ENV=LunarLander-v3 MIN_RETURN=200 bash zoo_chain.sh
#
# EXPERT_STEPS and IQ_STEPS replace RL Zoo's numbers of training steps, IQ_PARAMS adds hyperparameters: IQ_PARAMS="gamma:0.98".
set -euo pipefail

ENV=${ENV:-CartPole-v1}
demos="demos/$ENV"

rl_zoo3 train --algo ppo --env "$ENV" -f logs/ -n "${EXPERT_STEPS:--1}" --seed 0
python -m sb3_iq.record --algo ppo --env "$ENV" -f logs/ --n-episodes 25 --min-return "${MIN_RETURN:-475}" --out "$demos"
rl_zoo3 train --algo iq --env "$ENV" -f logs/ -n "${IQ_STEPS:--1}" --seed 0 -params "expert_data:'$demos'" ${IQ_PARAMS:-}
rl_zoo3 enjoy --algo iq --env "$ENV" -f logs/ -n 5000 --no-render
