#!/bin/bash
# Keeps a way back while the way in is being changed. Copied to the host by the role `hardening`.
#
#   access-guard arm SECONDS ADMIN GROUP
#                                    remember sshd, firewall, ADMIN's keys and place in GROUP as they
#                                    are now; put them back after SECONDS unless the change is
#                                    finished by then, also across a reboot
#   access-guard extend              wait the full time again; fails if it is over and all is put back
#   access-guard check FILE          FILE is fit as sshd's settings, and there still is a way back
#   access-guard own-port            sshd listens itself; systemd no longer does it for sshd
#   access-guard revert              put them back now
#   access-guard disarm              the change is proven: forget the way back
set -euo pipefail

base=/var/lib/hardening
self=$base/access-guard
saved=$base/before.tar
unit=hardening-revert

remember() {
  local admin=$1 group=$2
  local paths=(etc/ssh/sshd_config etc/ssh/sshd_config.d etc/default/ufw etc/ufw etc/sudoers.d)
  local home kept=() path
  home=$(getent passwd "$admin" | cut -d: -f6 || true)
  # The home of an administrator who does not exist yet is where the role will make it.
  local keys=${home:-/home/$admin}/.ssh/authorized_keys
  paths+=("${keys#/}")
  for path in "${paths[@]}"; do [ ! -e "/$path" ] || kept+=("$path"); done
  {
    echo "admin=$admin group=$group keys=$keys"
    echo "member=$(id -nG "$admin" 2>/dev/null | tr ' ' '\n' | grep -cFx "$group")"
    echo "ufw=$(LC_ALL=C ufw status 2>/dev/null | sed -n 's/^Status: //p')"
    echo "socket=$(systemctl is-active ssh.socket || true)"
    echo "socket_enabled=$(systemctl is-enabled ssh.socket 2>/dev/null || true)"
    echo "service_enabled=$(systemctl is-enabled ssh.service 2>/dev/null || true)"
  } > "$base/before.state"
  tar -C / -cpf "$saved.new" "${kept[@]}"
  mv "$saved.new" "$saved"
}

arm() {
  local seconds=$1 admin=$2 group=$3
  install -d -m 0700 "$base"
  # An unfinished change left the state from before it; that one is proven, the present one is not.
  [ -e "$saved" ] || remember "$admin" "$group"
  install -m 0700 "$0" "$self"
  cat > "/etc/systemd/system/$unit.service" <<UNIT
[Unit]
Description=Put SSH and firewall back, an unproven change was not finished
[Service]
Type=oneshot
ExecStart=$self revert
UNIT
  cat > "/etc/systemd/system/$unit.timer" <<UNIT
[Unit]
Description=Put SSH and firewall back in $seconds s unless the change is finished
[Timer]
OnActiveSec=$seconds
AccuracySec=1s
[Install]
WantedBy=timers.target
UNIT
  systemctl daemon-reload
  systemctl enable --quiet "$unit.timer"
  systemctl restart "$unit.timer"
}

extend() {
  [ -e "$saved" ] || { echo "too late: the host has already put SSH and firewall back" >&2; exit 1; }
  systemctl restart "$unit.timer"
}

# With socket activation (Ubuntu since 22.10) systemd holds the port, and sshd's own is ignored. The
# service is stopped before it is enabled: enabling adds an alias, at which systemd forgets the
# process of a running service, and then the old sshd goes on for ever. Sessions are not cut.
own_port() {
  systemctl disable --quiet --now ssh.socket
  rm -f /etc/systemd/system/ssh.service.d/00-socket.conf
  systemctl stop ssh.service
  systemctl enable --quiet ssh.service
  systemctl start ssh.service
}

forget() {
  systemctl disable --quiet --now "$unit.timer" 2>/dev/null || true
  rm -f "/etc/systemd/system/$unit.timer" "/etc/systemd/system/$unit.service" \
    "$saved" "$base/before.state" "$self"
  systemctl daemon-reload
}

revert() {
  [ -e "$saved" ] || { echo "nothing to put back"; return 0; }
  # shellcheck disable=SC1091
  source "$base/before.state"
  rm -rf /etc/ssh/sshd_config.d /etc/sudoers.d/hardening-* "$keys"
  tar -C / -xpf "$saved"
  [ "$member" != 0 ] || gpasswd --delete "$admin" "$group" >/dev/null 2>&1 || true
  if [ "$ufw" = active ]; then ufw reload; else ufw --force disable; fi
  ! systemctl is-active --quiet fail2ban || fail2ban-client unban --all || true
  if [ "$socket" = active ]; then
    systemctl stop ssh.service
    [ "$service_enabled" != disabled ] || systemctl disable --quiet ssh.service
    [ "$socket_enabled" != enabled ] || systemctl enable --quiet ssh.socket
    systemctl start ssh.socket
  else
    sshd -t
    systemctl reload-or-restart ssh.service
  fi
  local message="the change of SSH and firewall was not finished; the former state is restored"
  logger -t hardening "$message"
  # Of an earlier run of the role; on a bare host the operator sits in front of it.
  [ ! -x /usr/local/sbin/hardening-alert ] || /usr/local/sbin/hardening-alert access <<< "$message" ||
    logger -t hardening "nobody could be told"
  forget
}

case ${1:-} in
  arm) arm "$2" "$3" "$4" ;;
  extend) extend ;;
  check) [ -e "$saved" ] && sshd -t -f "$2" ;;
  own-port) own_port ;;
  revert) revert ;;
  disarm) forget; rm -f /run/motd.d/hardening-access ;;
  *) sed -n '2,13p' "$0" >&2; exit 2 ;;
esac
