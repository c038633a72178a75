#!/bin/sh
# Make a git repository with one file: make_repository.sh FOLDER
set -eu
git init -q "$1"
echo "# Notes" > "$1/NOTES.md"
git -C "$1" add NOTES.md
git -C "$1" -c user.name=example -c user.email=example@example.invalid commit -q -m "Begin the notes"
