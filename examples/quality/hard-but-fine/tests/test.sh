#!/bin/sh
# Hard, and nothing is wrong with it: few agents get the number right.
mkdir -p /logs/verifier
reward=0
if [ "$(cat /app/answer.txt)" = 5118 ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
