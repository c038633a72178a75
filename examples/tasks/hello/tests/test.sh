#!/bin/sh
# Reward 1 if the file holds exactly the line that was asked for.
mkdir -p /logs/verifier
reward=0
if [ "$(cat /app/hello.txt)" = 'Hello, world!' ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
