#!/usr/bin/env bash
# Brings a Docker engine: installs the distribution's own where there is none and starts it where
# it does not run, with systemd or without. Does nothing when `docker info` answers, but for a kernel
# setting without which many machines at a time do not boot.
set -euo pipefail
cd "$(dirname "$0")/.."

docker_answers() { docker info >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
command -v dockerd >/dev/null || docker_answers || missing+=(docker.io)
command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
command -v iptables >/dev/null || missing+=(iptables)
command -v ssh >/dev/null || missing+=(openssh-client)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || {
    echo "This machine has no ${missing[*]} and no apt-get to install it: please install it by hand." >&2
    exit 1
  }
  echo "installing: ${missing[*]}"
  log=$(mktemp)
  as_root apt-get update -qq >"$log" 2>&1 &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1 || {
    cat "$log" >&2
    echo "apt-get could not install ${missing[*]}; its output is above" >&2
    exit 1
  }
  rm -f "$log"
fi

# Each machine's systemd takes several of these from one purse; with the usual 128 the twentieth
# machine does not boot.
if [ "$(cat /proc/sys/fs/inotify/max_user_instances)" -lt 1024 ]; then
  echo "raising fs.inotify.max_user_instances to 1024 until the next reboot, for many machines at a time"
  as_root sysctl -q -w fs.inotify.max_user_instances=1024 ||
    echo "it stays at $(cat /proc/sys/fs/inotify/max_user_instances): machines may hang while they boot"
fi

docker_answers && exit 0

echo "starting the Docker engine"
if [ -d /run/systemd/system ]; then
  as_root systemctl start docker
else
  mkdir -p .cache
  as_root sh -c 'nohup dockerd >"$1" 2>&1 &' sh "$PWD/.cache/dockerd.log"
fi
for _ in $(seq 60); do
  docker_answers && exit 0
  sleep 0.5
done
if [ "$(id -u)" != 0 ] && sudo docker info >/dev/null 2>&1; then
  echo "Docker runs, but $(id -un) may not use it: sudo usermod -aG docker $(id -un), then log in again." >&2
else
  echo "The Docker engine did not come up. Its log: .cache/dockerd.log (or journalctl -u docker)" >&2
fi
exit 1
