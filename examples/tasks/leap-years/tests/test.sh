#!/bin/sh
# Reward 1 if the list is exactly right; 1900 is no leap year.
mkdir -p /logs/verifier
expected='1892 1896 1904 1908 1912'
reward=0
if [ "$(tr '\n' ' ' </app/leap_years.txt)" = "$expected " ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
