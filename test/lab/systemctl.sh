#!/bin/sh
# Stands for systemd in a disposable root: starts what a unit says, as the user and with the capabilities that it says,
# and does what the unit says of its end. It confines nothing, restarts nothing and orders nothing.
set -u
state=/run/stand-in
mkdir -p "$state/enabled"

file_of() {
  for folder in /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
    [ -f "$folder/$1" ] && { echo "$folder/$1"; return; }
  done
  return 1
}
values() { sed -n "s/^$2=//p" "$(file_of "$1")"; }
full() { case $1 in *.*) echo "$1" ;; *) echo "$1.service" ;; esac; }
is_active() { [ -f "$state/$1.pid" ] && kill -0 "$(cat "$state/$1.pid")" 2>/dev/null; }
capabilities() { for each in $1; do printf ',+%s' "$(echo "${each#CAP_}" | tr '[:upper:]' '[:lower:]')"; done; }

start() {
  file_of "$1" >/dev/null || { echo "Unit $1 not found." >&2; return 5; }
  is_active "$1" && return 0
  for condition in $(values "$1" ConditionPathExists); do
    case $condition in
      !*) [ ! -e "${condition#!}" ] || return 0 ;;
      *) [ -e "$condition" ] || return 0 ;;
    esac
  done
  for other in $(values "$1" Wants); do
    case $other in stayput-*) start "$other" ;; esac
  done
  rm -f "$state/$1.pid"
  setsid "$0" supervise "$1" >>"/var/log/$1.log" 2>&1 </dev/null &
  for _ in $(seq 400); do [ -e "$state/$1.pid" ] && return 0; sleep 0.05; done
  echo "$1 did not start" >&2
  return 1
}

supervise() {
  # As for systemd, a variable that is not set is empty.
  set +u
  user=$(values "$1" User)
  group=$(values "$1" Group)
  for folder in $(values "$1" StateDirectory); do install -d -m 0700 -o "$user" -g "$group" "/var/lib/$folder"; done
  for each in $(values "$1" EnvironmentFile); do [ -f "${each#-}" ] && . "${each#-}"; done
  bounding=$(values "$1" CapabilityBoundingSet)
  ambient=$(values "$1" AmbientCapabilities)
  set -- "$1" --no-new-privs --bounding-set="-all$(capabilities "$bounding")" \
    --inh-caps="-all$(capabilities "$ambient")" --ambient-caps="-all$(capabilities "$ambient")"
  [ -z "$user" ] || set -- "$@" --reuid="$user" --regid="$group" --init-groups
  unit=$1
  shift
  eval "setpriv \"\$@\" $(values "$unit" ExecStart) &"
  echo $! >"$state/$unit.starting"
  mv "$state/$unit.starting" "$state/$unit.pid"
  wait $!
  code=$?
  values "$unit" ExecStopPost | sed 's/^[-+@!]*//' | while read -r line; do eval "$line"; done
  rm -f "$state/$unit.pid"
  [ "$code" != 0 ] || for other in $(values "$unit" OnSuccess); do start "$other"; done
}

stop() {
  is_active "$1" || return 0
  pid=$(cat "$state/$1.pid")
  kill "$pid"
  for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.05; done
  kill -9 "$pid"
}

enable() {
  file_of "$1" >/dev/null || { echo "Unit $1 not found." >&2; return 5; }
  for linked in "$1" $(values "$1" Also); do touch "$state/enabled/$linked"; done
}

show() {
  if file_of "$1" >/dev/null; then echo LoadState=loaded; else echo LoadState=not-found; fi
  if is_active "$1"; then echo ActiveState=active; else echo ActiveState=inactive; fi
  if [ -e "$state/enabled/$1" ]; then echo UnitFileState=enabled; else echo UnitFileState=disabled; fi
}

now=false
verb=
units=
for argument in "$@"; do
  case $argument in
    --now) now=true ;;
    -*) ;;
    *) if [ -z "$verb" ]; then verb=$argument; else units="$units $(full "$argument")"; fi ;;
  esac
done
status=0
for unit in ${units:-none}; do
  case $verb in
    supervise | start | stop | show) "$verb" "$unit" || status=$? ;;
    restart) stop "$unit" && start "$unit" || status=$? ;;
    try-restart) ! is_active "$unit" || { stop "$unit" && start "$unit"; } || status=$? ;;
    enable) enable "$unit" || status=$?; "$now" && { start "$unit" || status=$?; } ;;
    disable) rm -f "$state/enabled/$unit"; "$now" && stop "$unit" ;;
    is-active) if is_active "$unit"; then echo active; else echo inactive; status=3; fi ;;
    is-enabled) if [ -e "$state/enabled/$unit" ]; then echo enabled; else echo disabled; status=1; fi ;;
    daemon-reload | preset | reset-failed | --version) ;;
    *) echo "the stand-in of systemctl does not know $verb" >&2; status=1 ;;
  esac
done
exit "$status"
