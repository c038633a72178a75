#!/bin/sh
# Reward 1 if the countdown ended.
mkdir -p /logs/verifier
reward=0
if [ "$(tail -n 1 /app/countdown.txt)" = 'done' ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
