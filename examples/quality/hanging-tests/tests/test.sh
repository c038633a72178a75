#!/bin/sh
# Faulty on purpose: it waits for a service that nobody starts.
mkdir -p /logs/verifier
until [ -e /app/service.pid ]; do sleep 1; done
grep -qx "done" /app/status.txt && echo 1 >/logs/verifier/reward.txt
