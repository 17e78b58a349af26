#!/usr/bin/env bash
# What the tests of deploy/hooks need besides the packages of the other tests: QEMU, libvirt, a small kernel for guests, and
# a CRIU newer than Debian 12's, which is put beside the system and not into it. All of it from Debian's archive.
# Usage: sudo scripts/install-migration-tools.sh [FOLDER]   (default: .ci/migration-tools)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-.ci/migration-tools}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work"/{lists/partial,archives/partial,state}
chmod 755 "$work"

apt-get update -qq
env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  busybox-static cpio crun libvirt-clients libvirt-daemon podman qemu-system-x86

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

if [ ! -e "$folder/criu/usr/sbin/criu" ]; then
  # The archive that this machine uses anyway, its newest suite.
  archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive sid main" >"$work/sources.list"
  : >"$work/status"
  private=(-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$work/state"
    -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work"
    -o Dir::Cache::archives="$work/archives" -o APT::Sandbox::User=root)
  apt-get "${private[@]}" -qq update
  apt-get "${private[@]}" -qq -y --no-install-recommends --download-only install criu
  rm -rf "$folder/criu.part" && mkdir -p "$folder/criu.part"
  for package in "$work"/archives/*.deb; do dpkg -x "$package" "$folder/criu.part"; done
  mv "$folder/criu.part" "$folder/criu"
fi
echo "ready: $folder"
