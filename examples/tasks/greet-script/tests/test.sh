#!/bin/sh
# Four cases, reported one by one in CTRF (/logs/verifier/ctrf.json); reward 1 if all of them pass.
mkdir -p /logs/verifier
start=$(date +%s)
passed=0
failed=0
cases=
check() { # name, status of the case
    if [ "$2" = 0 ]; then status=passed passed=$((passed + 1)); else status=failed failed=$((failed + 1)); fi
    echo "$status: $1"
    cases="$cases${cases:+,}{\"name\":\"$1\",\"status\":\"$status\",\"duration\":0}"
}

[ -x /app/greet.sh ]
check 'is executable' $?
[ "$(/app/greet.sh 'Ada Lovelace')" = 'Hello, Ada Lovelace!' ]
check 'greets by name' $?
[ "$(/app/greet.sh)" = 'Hello, stranger!' ]
check 'greets a stranger' $?
out=$(/app/greet.sh a b)
[ $? = 2 ] && [ -z "$out" ]
check 'refuses two names' $?

stop=$(date +%s)
summary="\"tests\":4,\"passed\":$passed,\"failed\":$failed,\"pending\":0,\"skipped\":0,\"other\":0"
summary="$summary,\"start\":${start}000,\"stop\":${stop}000"
echo "{\"results\":{\"tool\":{\"name\":\"sh\"},\"summary\":{$summary},\"tests\":[$cases]}}" >/logs/verifier/ctrf.json
if [ "$failed" = 0 ]; then echo 1; else echo 0; fi >/logs/verifier/reward.txt
