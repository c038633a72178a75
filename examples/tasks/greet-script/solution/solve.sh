#!/bin/sh
set -eu
cat >/app/greet.sh <<'SCRIPT'
#!/bin/sh
if [ $# -gt 1 ]; then
    echo 'usage: greet.sh [NAME]' >&2
    exit 2
fi
echo "Hello, ${1:-stranger}!"
SCRIPT
chmod +x /app/greet.sh
