#!/usr/bin/env bash
# Makes the image that every test machine and demo machine boots: a bare Debian as a VPS provider
# hands it out (systemd, sshd on port 22, python3, sudo), built from Debian's own packages, so that
# no container registry is needed.
#
#   demo/base_image/build.sh bookworm|trixie      (Debian 12 | Debian 13)
#
# The packages that the roles install lie in the image's apt cache, not installed: the machine is
# bare, yet building it does not wait for a mirror. It has the security updates of the day on which
# it is built: an image is built anew when this folder changes, when it is older than a day, and when
# the security archive was released again since. Where the archive does not answer, it is kept.
set -euo pipefail
cd "$(dirname "$0")"

release=${1:?usage: build.sh bookworm|trixie}
case $release in
  bookworm) postgresql=15 python=python3.11 ;;
  trixie) postgresql=17 python=python3.13 ;;
  *) echo "build.sh: no such release: $release (bookworm or trixie)" >&2; exit 2 ;;
esac
image=etl-base:$release
archive=${ETL_SECURITY_ARCHIVE:-http://security.debian.org/debian-security}
patience=${ETL_ARCHIVE_PATIENCE:-10} # seconds

# What the machine has when it is handed over.
installed=systemd-sysv,dbus,udev,openssh-server,sudo,python3,python3-apt,ca-certificates,iproute2
installed+=,iputils-ping,procps,netbase,nano,less,cron,kmod

# What the roles will install; only downloaded. A name that is missing here still works, slower.
cached="postgresql-$postgresql postgresql-contrib python3-psycopg2 pgbouncer age acl pgbackrest rclone
  ufw fail2ban python3-systemd nftables unattended-upgrades needrestart apt-listchanges systemd-timesyncd
  git rsync sqlite3 gcc libc6-dev $python-venv $python-dev python3-venv python3-pip
  libpam-tmpdir debsums apt-show-versions libpam-pwquality auditd apparmor lynis python3-aiohttp"

# The certificate authorities come from the machine we run on: in some
# networks nothing else can reach a package index.
inputs=$(find build.sh files /etc/ssl/certs/ca-certificates.crt -type f -exec cat {} + | sha256sum | cut -c1-16)
label() { docker image inspect --format "{{ index .Config.Labels \"$1\" }}" "$image" 2>/dev/null || true; }

# Prints the date of the security archive's release; fails where the archive is out of reach or slow.
# apt's own downloader, because it takes the way that the packages will take.
released() { # directory
  timeout "$patience" /usr/lib/apt/apt-helper -qq -o Acquire::Retries=0 -o APT::Sandbox::User=root \
    download-file "$archive/dists/$release-security/InRelease" "$1/InRelease" >/dev/null 2>&1 || return 1
  date_of <"$1/InRelease"
}

# Prints the date of the release that comes on stdin, in seconds.
date_of() { date -d "$(sed -n 's/^Date: //p' | grep .)" +%s; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kept=
if [ "$(label etl.inputs)" = "$inputs" ]; then
  built=$(date -d "$(docker image inspect --format '{{ .Created }}' "$image")" +%s)
  if ! date=$(released "$work"); then
    echo "base image $image: kept as of $(date -ud "@$built" '+%F %R') UTC, since $archive does not answer within $patience s;" \
      "its security updates may be older than today's"
    exit 0
  fi
  known=$(label etl.security)
  if [ "$date" -le "${known:-0}" ] && [ $(($(date +%s) - built)) -lt 86400 ]; then
    echo "base image $image: ready"
    exit 0
  fi
  kept="base image $image: kept as of $(date -ud "@$built" '+%F %R') UTC, since a new one could not be built"
fi

echo "base image $image: building (about a minute)"
chmod 755 "$work"
log=$work/mmdebstrap.log

# shellcheck disable=SC2016  # "$1" is for mmdebstrap's shell
if ! mmdebstrap --quiet --variant=minbase --include="$installed" \
  --components=main --aptopt='Acquire::Retries "3"' \
  --skip=cleanup/apt/cache,cleanup/apt/lists \
  --customize-hook='cat /etc/ssl/certs/ca-certificates.crt > "$1/etc/ssl/certs/ca-certificates.crt"' \
  --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
  --customize-hook='cp -r files/. "$1/"' \
  --customize-hook='mkdir -pm 700 "$1/root/.ssh"' \
  --customize-hook='chroot "$1" systemctl enable ssh-hostkeys.service' \
  --customize-hook="chroot \"\$1\" apt-get install -qq -y --no-install-recommends --download-only $(echo $cached)" \
  --customize-hook='printf "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n" > "$1/etc/pip.conf"' \
  "$release" "$work/root.tar" >"$log" 2>&1; then
  cat "$log" >&2
  [ -z "$kept" ] || { echo "$kept; mmdebstrap's log is above"; exit 0; }
  echo "base image $image: mmdebstrap failed, its log is above" >&2
  exit 1
fi

security=$(tar -xOf "$work/root.tar" --wildcards '*/apt/lists/*-security_InRelease' | date_of)
docker import \
  --change 'CMD ["/sbin/init"]' \
  --change 'ENV container=docker' \
  --change "LABEL etl.inputs=$inputs etl.security=$security" \
  "$work/root.tar" "$image" >/dev/null
# The one before has lost its name; it stays only while a machine still runs on it.
docker image prune --force --filter label=etl.inputs >/dev/null
echo "base image $image: ready"
