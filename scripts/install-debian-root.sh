#!/usr/bin/env bash
# What the tests of the packages install into: a small Debian with systemd, from the archive that this machine uses
# anyway. It is never booted itself; each test boots a layer above it. It is made once for all checkouts, and again when
# this script is another one.
# Usage: sudo scripts/install-debian-root.sh
set -euo pipefail
# What debootstrap mounts is gone with it, however it ends.
if [ "${1-}" != --unshared ]; then exec unshare --mount --propagation private bash "$0" --unshared; fi
folder=/var/cache/stayput-tests/debian-root
maker=$(sha256sum "$0" | cut -d ' ' -f 1)
mkdir -p "${folder%/*}"
exec 9>"$folder.lock"
flock 9
if [ "$(cat "$folder.maker" 2>/dev/null)" = "$maker" ]; then
  echo "ready: $folder"
  exit
fi

apt-get update -qq
env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap systemd-container

release=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' \
  'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
rm -rf --one-file-system "$folder.part" "$folder.before" "$folder.maker"
debootstrap --variant=minbase \
  --include=systemd,systemd-sysv,dbus,iproute2,iputils-ping,procps,curl,sudo,bind9-dnsutils,jq,openssl \
  "${release% *}" "$folder.part" "${release#* }" >"$folder.log"
# What is this machine's, and what nobody asks for.
rm -rf "$folder.part"/etc/{hostname,resolv.conf} "$folder.part"/var/{cache/apt,lib/apt/lists}/*
# Empty and not missing: no first boot, which would ask questions and enable units.
: >"$folder.part/etc/machine-id"
# What udev does on a machine of its own; a container has none.
echo 'z /dev/net/tun 0666' >"$folder.part/etc/tmpfiles.d/tun.conf"
# Tests may run on it.
[ ! -e "$folder" ] || mv "$folder" "$folder.before"
mv "$folder.part" "$folder"
echo "$maker" >"$folder.maker"
echo "ready: $folder"
