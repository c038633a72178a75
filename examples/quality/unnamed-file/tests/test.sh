#!/bin/sh
# Faulty on purpose: the name that is looked for stands nowhere but here.
mkdir -p /logs/verifier
reward=0
if [ "$(cat /app/answer.txt)" = 604800 ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
