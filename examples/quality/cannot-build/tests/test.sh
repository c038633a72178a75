#!/bin/sh
# The environment cannot be built: a file that is copied is not there.
mkdir -p /logs/verifier
if grep -qx hi /app/out.txt; then echo 1; else echo 0; fi >/logs/verifier/reward.txt
