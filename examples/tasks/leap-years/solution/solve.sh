#!/bin/sh
# LEAP_RULE=simple makes the mistake that many make: every fourth year, so 1900 too. The tests must catch it.
set -eu
year=1890
while [ "$year" -le 1912 ]; do
    leap=no
    if [ $((year % 4)) = 0 ]; then leap=yes; fi
    if [ "${LEAP_RULE:-gregorian}" = gregorian ] && [ $((year % 100)) = 0 ] && [ $((year % 400)) != 0 ]; then leap=no; fi
    if [ "$leap" = yes ]; then echo "$year"; fi
    year=$((year + 1))
done >/app/leap_years.txt
