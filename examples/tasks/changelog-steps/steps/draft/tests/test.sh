#!/bin/sh
# Reward 1 if the draft is exactly as asked for.
mkdir -p /logs/verifier
reward=0
if [ "$(cat /app/CHANGELOG.md)" = "$(printf '# Changelog\n\n## Unreleased\n\n- Reports can be exported\n')" ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
