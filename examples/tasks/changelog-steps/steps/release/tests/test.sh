#!/bin/sh
# Reward 1 if the heading was renamed and the entry is still there.
mkdir -p /logs/verifier
reward=0
if [ "$(cat /app/CHANGELOG.md)" = "$(printf '# Changelog\n\n## 1.0.0\n\n- Reports can be exported\n')" ]; then reward=1; fi
echo "$reward" >/logs/verifier/reward.txt
