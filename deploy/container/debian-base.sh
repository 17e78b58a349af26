#!/usr/bin/env bash
# Makes a base for the images where no registry can be reached: what Node and the data plane need of Debian, unpacked from
# its packages, which apt checks. Needs no root.
# Usage: deploy/container/debian-base.sh FILE.tar   then: podman import FILE.tar localhost/stayput-base
set -euo pipefail
archive=$(realpath -m "${1:?usage: $0 FILE.tar}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" -qq download base-files libc6 libgcc-s1 libstdc++6 netbase
mkdir root
for package in *.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x -C root --no-same-owner; done
# Nobody reads them in an image; the licences stay.
rm -rf root/usr/share/{man,locale,lintian,doc/*/changelog*}
mkdir -p root/{proc,sys,dev,run,tmp,etc}
chmod 1777 root/tmp
cat >root/etc/passwd <<'END'
root:x:0:0:root:/:/sbin/nologin
stayput:x:64341:64341:Stayput agent:/:/sbin/nologin
stayput-mapserver:x:64342:64342:Stayput map server:/:/sbin/nologin
END
printf 'root:x:0:\nstayput:x:64341:\nstayput-mapserver:x:64342:\n' >root/etc/group
tar -C root --owner=0 --group=0 --numeric-owner --sort=name -cf "$archive" .
