#!/usr/bin/env bash
# What the tests of deploy/hooks and of snapshots need besides the packages of the other tests: QEMU, libvirt, small kernels
# for guests (Debian 12's for clouds knows no vmgenid, Debian 13's does), and a CRIU newer than Debian 12's, which is put
# beside the system and not into it. All of it from Debian's archive.
# Usage: sudo scripts/install-migration-tools.sh [FOLDER]   (default: .ci/migration-tools)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-.ci/migration-tools}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"
chmod 755 "$work"

apt-get update -qq
env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  busybox-static cpio crun libvirt-clients libvirt-daemon podman qemu-system-x86 xz-utils

if [ ! -e "$folder/guest/vmlinuz" ]; then
  kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
  (cd "$work" && apt-get -o APT::Sandbox::User=root -qq download "$kernel" && dpkg -x "$kernel"_*.deb kernel)
  rm -rf "$folder/guest" && mkdir -p "$folder/guest/modules"
  cp "$work"/kernel/boot/vmlinuz-* "$folder/guest/vmlinuz.part"
  for module in drivers/virtio/virtio drivers/virtio/virtio_ring drivers/virtio/virtio_pci_legacy_dev \
    drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci net/core/failover drivers/net/net_failover \
    drivers/net/virtio_net; do
    cp "$work"/kernel/lib/modules/*/kernel/$module.ko "$folder/guest/modules/"
  done
  mv "$folder/guest/vmlinuz.part" "$folder/guest/vmlinuz"
fi

# An apt that sees nothing but one suite of the archive that this machine uses anyway, and thinks nothing is installed.
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
use_suite() {
  local state="$work/$1"
  mkdir -p "$state"/{lists/partial,archives/partial}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $1 main" >"$state/sources.list"
  : >"$state/status"
  apt=(-o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$state"
    -o Dir::State::status="$state/status" -o Dir::State::lists="$state/lists" -o Dir::Cache="$state"
    -o Dir::Cache::archives="$state/archives" -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" -qq update
}

if [ ! -e "$folder/snapshot-guest/tun.ko" ]; then
  use_suite trixie
  kernel=$(apt-cache "${apt[@]}" depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
  (cd "$work" && apt-get "${apt[@]}" -qq download "$kernel" && dpkg -x "$kernel"_*.deb snapshot-kernel)
  mkdir -p "$folder/snapshot-guest"
  cp "$work"/snapshot-kernel/boot/vmlinuz-* "$folder/snapshot-guest/vmlinuz"
  xz -dc "$work"/snapshot-kernel/usr/lib/modules/*/kernel/drivers/net/tun.ko.xz >"$folder/snapshot-guest/tun.ko.part"
  mv "$folder/snapshot-guest/tun.ko.part" "$folder/snapshot-guest/tun.ko"
fi

if [ ! -e "$folder/criu/usr/sbin/criu" ]; then
  use_suite sid
  apt-get "${apt[@]}" -qq -y --no-install-recommends --download-only install criu
  rm -rf "$folder/criu.part" && mkdir -p "$folder/criu.part"
  for package in "$work"/sid/archives/*.deb; do dpkg -x "$package" "$folder/criu.part"; done
  mv "$folder/criu.part" "$folder/criu"
fi
echo "ready: $folder"
