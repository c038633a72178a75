#!/bin/sh
# Faulty on purpose: the environment comes with the answer, so that nothing has to be done.
mkdir -p /logs/verifier
reward=0
if [ "$(tr '\n' ' ' </app/colours.txt)" = "blue green red " ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
