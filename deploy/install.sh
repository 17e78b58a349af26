#!/bin/sh
# Installs from a built checkout: program links, users, folders and units. `install.sh agent` or `install.sh mapserver`.
set -eu

role=${1:-}
here=$(cd "$(dirname "$0")/.." && pwd -P)
fail() { echo "install.sh: $*" >&2; exit 2; }

case $role in
  agent) units='stayput-dataplane stayput-agent stayput-agent-join stayput-dns-host stayput-dns-restore' ;;
  mapserver) units='stayput-mapserver' ;;
  *) fail "say what this machine is: $0 agent, or $0 mapserver" ;;
esac
[ "$(id -u)" = 0 ] || fail "run it as root: sudo $0 $role"
[ -f "$here/dist/cli/main.js" ] || fail "not built yet: cd $here && npm ci && npm run build"
case $here in
  /root/* | /home/*) fail "the daemons may not read $here: move the checkout to /opt/stayput and run it from there" ;;
esac

if [ "$role" = agent ]; then
  binary=$here/dataplane/target/release/stayput-dataplane
  [ -x "$binary" ] || fail "the data plane is not built yet: cd $here && npm run build:dataplane"
  install -m 0755 "$binary" /usr/local/bin/stayput-dataplane.new
  mv /usr/local/bin/stayput-dataplane.new /usr/local/bin/stayput-dataplane
  install -D -m 0644 "$here/deploy/networkmanager/stayput.conf" /usr/lib/NetworkManager/conf.d/90-stayput.conf
fi
chmod 0755 "$here/dist/cli/main.js"
ln -sfn "$here/dist/cli/main.js" /usr/local/bin/stayput

install -D -m 0644 "$here/deploy/systemd/stayput.sysusers.conf" /usr/lib/sysusers.d/stayput.conf
install -D -m 0644 "$here/deploy/systemd/stayput.tmpfiles.conf" /usr/lib/tmpfiles.d/stayput.conf
systemd-sysusers /usr/lib/sysusers.d/stayput.conf
systemd-tmpfiles --create /usr/lib/tmpfiles.d/stayput.conf
install -d -m 0755 /etc/stayput
for unit in $units; do
  install -m 0644 "$here/deploy/systemd/$unit.service" /etc/systemd/system/
done
if [ "$role" = agent ]; then
  install -m 0644 "$here/deploy/systemd/stayput-agent-dns.socket" /etc/systemd/system/
fi
# In an image that is being built systemd is not running yet.
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
echo "installed: $(stayput --version) from $here ($units)"
