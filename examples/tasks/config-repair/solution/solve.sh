#!/bin/sh
# EFFORT=half does the first half of the work, as an agent that stops early would.
set -eu
sed -i 's/^port = .*/port = 9090/; s/^workers = .*/workers = 2/' /app/service.conf
if [ "${EFFORT:-full}" = half ]; then exit 0; fi
sed -i 's/^log_level = .*/log_level = INFO/' /app/service.conf
printf 'port\nworkers\nlog_level\n' >/app/changed.txt
