#!/usr/bin/env bash
# What the tests of docs/dns.md's "Making the host use it" need besides the packages of the other tests: the programs
# that decide what a host asks for names. They are put beside the system and not into it, whose names they would change.
# Usage: sudo scripts/install-dns-tools.sh [FOLDER]   (default: .ci/dns-tools)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-.ci/dns-tools}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"

# tree NAME PACKAGE...: their files as they would be below /, with /usr merged.
tree() {
  local name=$1
  shift
  [ -e "$folder/$name" ] && return
  mkdir -p "$work/$name" "$folder/$name.part"
  (cd "$work/$name" && apt-get -o APT::Sandbox::User=root -qq download "$@")
  for package in "$work/$name"/*.deb; do dpkg -x "$package" "$folder/$name.part"; done
  for part in bin sbin lib; do
    if [ -d "$folder/$name.part/$part" ]; then
      mkdir -p "$folder/$name.part/usr/$part"
      cp -a "$folder/$name.part/$part/." "$folder/$name.part/usr/$part/"
    fi
  done
  mv "$folder/$name.part" "$folder/$name"
}

apt-get update -qq
bus=(dbus-daemon dbus-bin dbus-system-bus-common libdbus-1-3)
tree resolved systemd-resolved systemd libsystemd-shared libsystemd0 "${bus[@]}"
tree networkmanager network-manager libnm0 libndp0 libteamdctl0 libmm-glib0 libbluetooth3 libgudev-1.0-0 libnewt0.52 \
  libslang2 libnl-3-200 "${bus[@]}"
tree resolvconf resolvconf
tree openresolv openresolv
echo "ready: $folder"
