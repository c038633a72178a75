#!/bin/sh
# Reward 1 if the totals are right and the data was left as it was.
mkdir -p /logs/verifier
expected='shop,total,currency
north,225,EUR
south,290,EUR
west,15,EUR'
reward=0
if [ "$(cat /app/report.csv)" = "$expected" ] && [ "$(cat /app/data/*.csv | cksum)" = "$(cat /tests/data.cksum)" ]; then
    reward=1
fi
echo "$reward" >/logs/verifier/reward.txt
