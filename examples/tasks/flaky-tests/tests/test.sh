#!/bin/sh
# Flaky on purpose: a right answer gets reward 1 or 0 by a random bit, a wrong one always 0.
# It stands for tests that depend on time or on a port; a verdict over several oracle trials must show it.
mkdir -p /logs/verifier
reward=0
if [ "$(cat /app/seconds.txt)" = 86400 ]; then
    reward=$(($(od -An -N1 -tu1 /dev/urandom) % 2))
    if [ "$reward" = 0 ]; then echo 'flaked: the answer was right'; fi
fi
echo "$reward" >/logs/verifier/reward.txt
