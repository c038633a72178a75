#!/usr/bin/env bash
# Runs .ci/run of HEAD on a Debian 12 made for it, on which nothing was ever installed by hand.
#
# The machine is a folder made by debootstrap, entered with mount, pid, ipc, host name and network namespaces of its own,
# so that its Docker engine and its packages meet nothing of this machine's. It has what a new machine has besides
# Debian: this machine's package sources and certificates, and the Python that tools/find-python.sh finds, read-only.
# Give a command to run that instead of .ci/run: tools/ci-fresh.sh .ci/system
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "ci-fresh: needs root, to make a root folder and namespaces" >&2; exit 1; }
.ci/packages debootstrap git iproute2 slirp4netns util-linux >/dev/null

python=$(readlink -f "$(tools/find-python.sh)")
place=$(mktemp -d "${TMPDIR:-/var/tmp}/ci-fresh.XXXXXX")
root=$place/root
network= outer=
cleanup() {
    for pid in $network $outer; do kill "$pid" 2>/dev/null || true; done
    rm -rf --one-file-system "$place" || echo "ci-fresh: $place could not be removed" >&2
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "ci-fresh: making a Debian 12 in $place (about half a minute)"
mirror=$(. .ci/lib.sh && apt_mirror)
(. .ci/lib.sh && use_apt_proxy && debootstrap --variant=minbase --include=ca-certificates,git,make,python3,gcc,libc6-dev,procps bookworm "$root" "$mirror") >"$place/log" 2>&1 ||
    { tail -n 20 "$place/log" >&2; exit 1; }
rm -rf "$root"/etc/apt/sources.list*
for path in /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/apt.conf.d /etc/pip.conf /etc/xdg/pip /etc/npmrc /usr/etc/npmrc \
    /etc/ssl/certs /usr/share/keyrings /usr/local/share/ca-certificates; do
    [ -e "$path" ] || continue
    rm -rf "${root:?}$path"
    mkdir -p "$root$(dirname "$path")"
    cp -aTL "$path" "$root$path"
done
git clone -q . "$root/checkout"
printf 'nameserver 10.0.2.3\n' >"$root/etc/resolv.conf"
printf '127.0.0.1 localhost ci-fresh\n' >"$root/etc/hosts"
mkdir -p "$root${python%/bin/*}"

# The shell waits for its network before it begins; slirp4netns needs its pid for that.
mkfifo "$place/ready"
cat >"$place/enter" <<'END'
set -euo pipefail
root=$1 python=$2 ready=$3
shift 3
mount --bind "$root" "$root"
mount --bind -o ro "$python" "$root$python"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
hostname ci-fresh
read -r _ <"$ready"
ip link set lo up
cd "$root"
# Not chroot alone: the kernel refuses user namespaces, and so sandboxes, to whoever is in one.
pivot_root . mnt
umount -l mnt
exec chroot . /usr/bin/env -i HOME=/root CI=true TERM=dumb LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHON="$python/bin/python3" \
    sh -c 'cd /checkout && exec "$@"' sh "$@"
END
[ $# -gt 0 ] || set -- bash .ci/run
unshare --mount --pid --fork --kill-child --ipc --uts --net --propagation slave \
    bash "$place/enter" "$root" "${python%/bin/*}" "$place/ready" "$@" &
outer=$!
inner=
until inner=$(pgrep -P "$outer"); do kill -0 "$outer" && sleep 0.1; done
slirp4netns --configure --mtu=1400 --disable-host-loopback --ready-fd=3 "$inner" tap0 3>"$place/up" >"$place/network" 2>&1 &
network=$!
until [ -s "$place/up" ]; do
    kill -0 "$network" || { cat "$place/network" >&2; exit 1; }
    sleep 0.1
done
echo go >"$place/ready"
wait "$outer"
