#!/bin/sh
# Installs Stayput on a machine with systemd: from the tarball that this script is in, or from a built checkout (or npm
# package) whose deploy/ it is in. Again for an upgrade; what runs is started again then. Nothing else is started.
set -eu
# With root's own, the daemons might not read what is installed.
umask 022

usage='usage: install.sh agent|mapserver [--prefix FOLDER]
       install.sh uninstall [--purge] [--prefix FOLDER]'
fail() { echo "install.sh: $*" >&2; exit 2; }

action=${1:-}
case $action in
  agent | mapserver | uninstall) shift ;;
  *) fail "say what this machine is
$usage" ;;
esac
prefix=/usr/local
purge=no
while [ $# -gt 0 ]; do
  case $1 in
    --prefix) prefix=${2:?a folder}; shift 2 ;;
    --purge) purge=yes; shift ;;
    *) fail "$1 is unknown
$usage" ;;
  esac
done
case $prefix in
  *[!A-Za-z0-9_./+-]*) fail "--prefix takes a path of letters, digits and _ . / + -" ;;
  /*) ;;
  *) fail "--prefix takes an absolute path" ;;
esac
prefix=${prefix%/}

here=$(cd "$(dirname "$0")" && pwd -P)
units=/etc/systemd/system
agent_units='stayput-dataplane.service stayput-agent.service stayput-agent-join.service stayput-agent-dns.socket stayput-dns-host.service stayput-dns-restore.service stayput-sleep.service'

[ "$(id -u)" = 0 ] || fail "run it as root: sudo $0 $action"
command -v systemctl >/dev/null ||
  fail "there is no systemd here. Nothing was changed. Run the programs by the init system of this machine:
  stayput-dataplane --socket /run/stayput/dataplane.sock    as root, or with CAP_NET_ADMIN and CAP_NET_RAW
  stayput agent run                                         as a user who may open that socket
  stayput mapserver run
They are in ${here}/bin and need nothing that is not in this folder."
if dpkg-query -W -f '${db:Status-Abbrev}' stayput 2>/dev/null | grep -q '^i'; then
  fail 'the Debian package is installed: upgrade that, or remove it first (apt-get remove stayput)'
fi

is_booted() { [ -d /run/systemd/system ]; }

# Connections are open over the restart of a data plane, but not for nothing.
is_same_dataplane() {
  pid=$(systemctl show --property=MainPID --value stayput-dataplane.service)
  cmp -s "/proc/$pid/exe" "$prefix/bin/stayput-dataplane"
}

# Each of them forwards on while the next one is away.
restart_running() {
  for unit in stayput-mapserver stayput-agent stayput-dns-host stayput-dataplane; do
    systemctl --quiet is-active "$unit.service" || continue
    case $changed_units in
      *" $unit.service "*) ;;
      *) if [ "$unit" = stayput-dataplane ] && is_same_dataplane; then continue; fi ;;
    esac
    systemctl restart "$unit.service" || echo "install.sh: $unit did not start again: journalctl -u $unit" >&2
  done
}

# What runs has the confinement of the unit that it was started by.
changed_units=' '
install_units() {
  for unit in "$@"; do
    sed "s#^\(Exec[A-Za-z]*=-\{0,1\}\)stayput#\1$prefix/bin/stayput#" "$source_units/$unit" >"$units/$unit.new"
    chmod 0644 "$units/$unit.new"
    cmp -s "$units/$unit.new" "$units/$unit" || changed_units="$changed_units$unit "
    mv "$units/$unit.new" "$units/$unit"
  done
}

# A program that runs is not written to.
install_program() {
  install -D -m 0755 "$1" "$2.new"
  mv "$2.new" "$2"
}

install_tarball() {
  "$here/lib/stayput/bin/node" --version >/dev/null ||
    fail "the programs in $here do not run here: they are for another architecture, or for a newer C library"
  rm -rf "$prefix/lib/stayput.new" "$prefix/lib/stayput.old"
  mkdir -p "$prefix/lib"
  cp -R "$here/lib/stayput" "$prefix/lib/stayput.new"
  # Whoever unpacked the tarball may have had another umask.
  chmod -R u=rwX,go=rX "$prefix/lib/stayput.new"
  chown -R 0:0 "$prefix/lib/stayput.new"
  [ ! -e "$prefix/lib/stayput" ] || mv "$prefix/lib/stayput" "$prefix/lib/stayput.old"
  mv "$prefix/lib/stayput.new" "$prefix/lib/stayput"
  rm -rf "$prefix/lib/stayput.old"
  install_program "$here/bin/stayput" "$prefix/bin/stayput"
  install_program "$here/bin/stayput-dataplane" "$prefix/bin/stayput-dataplane"
  (cd "$here/share" && find . -type f) | while read -r path; do
    mode=0644
    [ ! -x "$here/share/$path" ] || mode=0755
    install -D -m "$mode" "$here/share/$path" "$prefix/share/$path"
  done
  # shellcheck disable=SC2015 # whether it works does not matter
  command -v restorecon >/dev/null && restorecon -R "$prefix/lib/stayput" "$prefix/bin" || true
}

install_checkout() {
  case $root in
    /root/* | /home/*) fail "the daemons may not read $root: move it to /opt/stayput and run $0 from there" ;;
  esac
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin node --version >/dev/null 2>&1 ||
    fail 'the daemons find no Node in /usr/local/bin or /usr/bin: make a link there to yours'
  if [ "$action" = agent ]; then
    binary=$root/dataplane/target/release/stayput-dataplane
    [ -x "$binary" ] || fail "the data plane is not built yet: $root/dist/cli/main.js dataplane build"
    install_program "$binary" "$prefix/bin/stayput-dataplane"
  fi
  chmod 0755 "$root/dist/cli/main.js"
  mkdir -p "$prefix/bin"
  ln -sfn "$root/dist/cli/main.js" "$prefix/bin/stayput"
}

uninstall() {
  # The sockets first: a question to one would start the agent again.
  if is_booted; then
    for kind in socket service; do systemctl stop "stayput-*.$kind" || true; done
  fi
  for unit in "$units"/stayput-*.service "$units"/stayput-*.socket; do
    [ -e "$unit" ] || continue
    systemctl disable "$(basename "$unit")" 2>/dev/null || true
    rm -f "$unit"
  done
  "$prefix/bin/stayput" dns restore >/dev/null 2>&1 || true
  if [ -e /sys/class/net/stayput0 ]; then ip link delete stayput0 || true; fi
  rm -rf "$prefix/lib/stayput" "$prefix/share/stayput" "$prefix/share/doc/stayput"
  rm -f "$prefix/bin/stayput" "$prefix/bin/stayput-dataplane" "$prefix"/share/man/man1/stayput*.1.gz \
    "$prefix/share/bash-completion/completions/stayput" "$prefix/share/zsh/vendor-completions/_stayput" \
    "$prefix/share/fish/vendor_completions.d/stayput.fish" \
    /etc/sysusers.d/stayput.conf /etc/tmpfiles.d/stayput.conf /etc/NetworkManager/conf.d/90-stayput.conf
  if [ "$purge" = yes ]; then
    rm -rf /etc/stayput /var/lib/stayput /run/stayput /run/stayput-dns
    for user in stayput stayput-dataplane stayput-mapserver; do userdel "$user" 2>/dev/null || true; done
    for group in stayput stayput-mapserver; do groupdel "$group" 2>/dev/null || true; done
  fi
  if is_booted; then systemctl daemon-reload; fi
  [ "$purge" = yes ] || echo 'kept: /etc/stayput, /var/lib/stayput and the users (uninstall --purge removes them)'
}

if [ "$action" = uninstall ]; then
  uninstall
  exit 0
fi

if [ -x "$here/lib/stayput/bin/node" ]; then
  source_units=$here/lib/systemd/system
  sysusers=$here/lib/sysusers.d/stayput.conf
  tmpfiles=$here/lib/tmpfiles.d/stayput.conf
  networkmanager=$here/lib/NetworkManager/conf.d/90-stayput.conf
  install_tarball
else
  root=$(dirname "$here")
  [ -f "$root/dist/cli/main.js" ] || fail "not built yet: cd $root && npm ci && npm run build"
  source_units=$here/systemd
  sysusers=$here/systemd/stayput.sysusers.conf
  tmpfiles=$here/systemd/stayput.tmpfiles.conf
  networkmanager=$here/networkmanager/stayput.conf
  install_checkout
fi

install -D -m 0644 "$sysusers" /etc/sysusers.d/stayput.conf
install -D -m 0644 "$tmpfiles" /etc/tmpfiles.d/stayput.conf
systemd-sysusers stayput.conf
systemd-tmpfiles --create stayput.conf
install -d -m 0755 /etc/stayput
if [ "$action" = agent ]; then
  install -D -m 0644 "$networkmanager" /etc/NetworkManager/conf.d/90-stayput.conf
  # shellcheck disable=SC2086 # one word for each unit
  install_units $agent_units
else
  install_units stayput-mapserver.service
fi
# In an image that is being built systemd is not running yet.
if is_booted; then
  systemctl daemon-reload
  restart_running
fi
echo "installed in $prefix: stayput $("$prefix/bin/stayput" --version), for this machine as $action"
