#!/bin/sh
# Faulty on purpose: there is no reward at all where the work is missing.
set -e
mkdir -p /logs/verifier
grep -qx ready /app/status.txt
echo 1 >/logs/verifier/reward.txt
