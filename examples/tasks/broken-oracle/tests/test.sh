#!/bin/sh
# Reward 1 for 2 3 5 7 11. The tests are right; the task's own solution is not.
mkdir -p /logs/verifier
reward=0
if [ "$(tr '\n' ' ' </app/primes.txt)" = '2 3 5 7 11 ' ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
