#!/usr/bin/env bash
# Makes the bare Debian root file system that the tests boot: `tests/debian/build.sh FILE.tar`. Needs root.
#
# The release and the mirror are those of this machine, because the programs under test need at least the C library they
# were built with. The file is made again only if its packages, the release or the mirror have changed.
set -euo pipefail

out=$1
# A fresh virtual server has these; ufw is for the firewall recipes of the documentation.
packages=adduser,ca-certificates,dbus,iproute2,man-db,nftables,openssl,procps,systemd,systemd-sysv,ufw

. /etc/os-release
mirror() {
    apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $VERSION_CODENAME" | sed -n 1p
}
[ -n "$(mirror)" ] || apt-get update -q
uri=$(mirror)
[ -n "$uri" ] || { echo "apt knows no repository of $VERSION_CODENAME on this machine" >&2; exit 1; }

wanted="$VERSION_CODENAME $uri $packages"
if [ -e "$out" ] && [ "$(cat "$out.made-of" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
mkdir -p "$(dirname "$out")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Proxies and other options of this machine's downloads.
apt-config dump --format '%F "%v";%n' Acquire >"$scratch/apt.conf"
mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" --aptopt="$scratch/apt.conf" \
    --customize-hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"' \
    "$VERSION_CODENAME" "$scratch/root.tar" "$uri"
mv "$scratch/root.tar" "$out"
echo "$wanted" >"$out.made-of"
