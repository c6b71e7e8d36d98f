#!/bin/sh
# Makes the root file system that both images share, out of Debian packages, in
# the folder given. Needs root and debootstrap. The network is reached by the
# host's own programs only: its mirror, its proxy and its certificates count.
set -eu

root=$1
suite=bookworm
here=$(cd "$(dirname "$0")" && pwd)

# The Debian archives that the host's apt knows for this suite, one
# `deb` line each; none on a host of another suite or distribution. Arguments
# go to apt-get.
host_sources() {
    apt-get indextargets "$@" 'Created-By: Packages' 'Origin: Debian' \
        --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' |
        grep -E "^deb [^ ]+ $suite(-updates|-security)? main\$" | sort -u || true
}

say() { echo "base: $*"; }

say "minimal system"
sources=$(host_sources)
if [ -z "$sources" ]; then
    # apt only knows what it has lists of, and images of Debian come without.
    mkdir -p "$root.lists/partial"
    apt-get -qq -o "Dir::State::lists=$root.lists" update >"$root.log" 2>&1 || true
    sources=$(host_sources -o "Dir::State::lists=$root.lists")
    rm -rf "$root.lists"
fi
mirror=$(echo "$sources" | sed -n "s/^deb \([^ ]*\) $suite main\$/\1/p" | head -n 1)
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
if [ "${http_proxy:-DIRECT}" != DIRECT ]; then export http_proxy; fi
if [ "${https_proxy:-DIRECT}" != DIRECT ]; then export https_proxy; fi
# shellcheck disable=SC2086  # without a mirror, debootstrap takes its own
debootstrap --variant=minbase "$suite" "$root" $mirror >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    echo "base: debootstrap failed, see $root.log" >&2
    exit 1
}
if [ -n "$sources" ]; then echo "$sources" >"$root/etc/apt/sources.list"; fi

# Nobody reads manuals in a container (the licences stay), and without a GPU
# its drivers only weigh: Chromium and Xvfb draw in software of their own.
cat >"$root/etc/dpkg/dpkg.cfg.d/small" <<'CFG'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
path-exclude=/usr/lib/*/dri/*
path-exclude=/usr/lib/*/libLLVM*
path-exclude=/usr/lib/*/libz3*
path-exclude=/usr/lib/chromium/libVkLayer_khronos_validation.so
path-exclude=/usr/lib/chromium/locales/*
path-include=/usr/lib/chromium/locales/en-US.pak
CFG
# Packages must not start their services while they are being installed.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

# The host's apt drives dpkg inside the root: of the host's configuration it
# takes how to reach the archives, and none of the hooks.
conf="$root.apt.conf"
{
    apt-config dump Acquire
    cat <<CONF
Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::sourcelist "$root/etc/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "$root/var/lib/apt";
Dir::State::status "$root/var/lib/dpkg/status";
Dir::Cache "$root/var/cache/apt";
DPkg::Chroot-Directory "$root";
Dpkg::Use-Pty "false";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "5";
CONF
} >"$conf"
export APT_CONFIG="$conf" DEBIAN_FRONTEND=noninteractive LC_ALL=C

say "packages"
apt-get -q update >>"$root.log" 2>&1 &&
    apt-get -qy dist-upgrade >>"$root.log" 2>&1 &&
    apt-get -qy install $(grep -v '^#' "$here/packages.txt") >>"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    echo "base: installing the packages failed, see $root.log" >&2
    exit 1
}

say "clean-up"
chroot "$root" useradd --create-home --groups audio,pulse-access --shell /usr/sbin/nologin calls
install -d -m 1777 "$root/tmp/.X11-unix"
install -d "$root/data"
rm -rf "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/* \
    "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/etc/apt/sources.list \
    "$root"/usr/sbin/policy-rc.d "$root"/usr/share/info "$root"/usr/share/man \
    "$root"/usr/share/locale "$root"/usr/share/icons/Adwaita
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root" -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
: >"$root/etc/machine-id"
# debootstrap copies these from the host.
rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
rm -f "$root.log" "$conf"
