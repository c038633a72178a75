# Shared by the scripts in this folder; sourced, not run.

# The tag that the example tasks' Dockerfiles start FROM.
BASE_IMAGE=debian:bookworm-slim
BASE_SUITE=bookworm

say() { printf '.ci: %s\n' "$*"; }
die() { printf '.ci: %s\n' "$*" >&2; exit 1; }

# The archive that this machine's own apt uses for Debian's main section, so that no file here names one.
apt_mirror() {
    local uri
    uri=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(COMPONENT) $(RELEASE)' 'Created-By: Packages' |
        awk -v suite="$BASE_SUITE" '$NF == suite && $(NF - 1) == "main" { print $1; exit }')
    [ -n "$uri" ] || die "apt has no source for $BASE_SUITE main; this set-up is for Debian 12"
    printf '%s\n' "$uri"
}

# apt's proxy, for the programs that download beside apt.
use_apt_proxy() {
    local proxy=
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    if [ -n "$proxy" ]; then export http_proxy="$proxy"; fi
}
