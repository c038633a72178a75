#!/bin/sh
# Wrong on purpose: 1 is no prime number, so this solution fails the task's tests.
set -eu
printf '1\n2\n3\n5\n7\n' >/app/primes.txt
