#!/bin/sh
# Called by main.tf with its inputs in the environment: `install.sh mapserver` or `install.sh agent`.
set -eu
role=$1

remote() {
  host=$1
  shift
  # shellcheck disable=SC2086 # one word for each option
  ssh -o BatchMode=yes -o ConnectTimeout=20 $SSH_OPTIONS "$host" "$@"
}

# What runs at the other end is root's: as root, or by sudo without a password.
as_root() {
  host=$1
  shift
  remote "$host" "if [ \"\$(id -u)\" = 0 ]; then exec $*; else exec sudo -n $*; fi"
}

install_package() {
  # Under a name that others on the host could know, they could put a file of theirs in its place.
  folder=$(remote "$1" mktemp -d /var/tmp/stayput-XXXXXX)
  case $folder in
    /var/tmp/stayput-??????) ;;
    *) echo "$1 says more than it is asked: $folder" >&2; exit 1 ;;
  esac
  case $PACKAGE in
    *.deb) name=$folder/package.deb ;;
    *) name=$folder/package.tar.gz ;;
  esac
  remote "$1" "cat > $name" <"$PACKAGE"
  case $name in
    *.deb) as_root "$1" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --allow-downgrades --reinstall "$name" >&2 ;;
    *.tar.gz)
      unpacked=/var/cache/stayput-unpacked
      as_root "$1" rm -rf "$unpacked"
      as_root "$1" mkdir -m 0700 "$unpacked"
      as_root "$1" tar -xzf "$name" -C "$unpacked" --strip-components=1 --no-same-owner
      as_root "$1" "$unpacked/install.sh" "$role" >&2
      as_root "$1" rm -rf "$unpacked"
      ;;
  esac
  remote "$1" rm -rf "$folder"
}

case $role in
  mapserver)
    install_package "$MAP_SERVER"
    as_root "$MAP_SERVER" test -e /var/lib/stayput/mapserver/overlay.json ||
      as_root "$MAP_SERVER" runuser -u stayput-mapserver -- stayput mapserver init "$INIT_OPTIONS"
    as_root "$MAP_SERVER" systemctl enable --now stayput-mapserver
    ;;
  agent)
    install_package "$HOST"
    if ! as_root "$HOST" test -e /var/lib/stayput/agent/identity.json; then
      as_root "$MAP_SERVER" runuser -u stayput-mapserver -- stayput token create --expires 15m "$WISHES" |
        as_root "$HOST" runuser -u stayput -- stayput agent join "https://$URL_HOST" --token-file - "$WISHES"
    fi
    as_root "$HOST" systemctl enable --now stayput-dataplane stayput-agent
    ;;
esac
