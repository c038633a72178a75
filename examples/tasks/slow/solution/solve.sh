#!/bin/sh
# SLOW_SEC in the agent's environment says how many seconds this takes.
set -eu
left=${SLOW_SEC:-2}
while [ "$left" -gt 0 ]; do
    echo "$left"
    sleep 1
    left=$((left - 1))
done >/app/countdown.txt
echo 'done' >>/app/countdown.txt
