#!/bin/sh
set -eu
echo 86400 >/app/seconds.txt
