#!/bin/sh
set -eu
sed -i 's/^## Unreleased$/## 1.0.0/' /app/CHANGELOG.md
