#!/bin/sh
set -eu
printf '# Changelog\n\n## Unreleased\n\n- Reports can be exported\n' >/app/CHANGELOG.md
