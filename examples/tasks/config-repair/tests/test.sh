#!/bin/sh
# Several rewards: the share of right settings, whether the list of changes is right, and the mean of both.
mkdir -p /logs/verifier
right=0
for line in 'port = 9090' 'workers = 2' 'log_level = INFO' 'timeout_sec = 30'; do
    if grep -qx "$line" /app/service.conf; then right=$((right + 1)); else echo "not found: $line"; fi
done
listed=0
if [ "$(tr '\n' ' ' </app/changed.txt)" = 'port workers log_level ' ]; then listed=1; else echo "the list of changes is wrong"; fi
awk -v right="$right" -v listed="$listed" \
    'BEGIN { s = right / 4; printf "{\"reward\": %.3f, \"settings\": %.2f, \"listed\": %d}\n", (s + listed) / 2, s, listed }' \
    >/logs/verifier/reward.json
