#!/usr/bin/env bash
# Makes the image that every test machine and demo machine boots: a bare Debian as a VPS provider
# hands it out (systemd, sshd on port 22, python3, sudo), built from Debian's own packages, so that
# no container registry is needed.
#
#   demo/base_image/build.sh bookworm|trixie      (Debian 12 | Debian 13)
#
# The packages that the roles install lie in the image's apt cache, not installed: the machine is
# bare, yet building it does not wait for a mirror. An image is made again when this folder changes.
set -euo pipefail
cd "$(dirname "$0")"

release=${1:?usage: build.sh bookworm|trixie}
case $release in
  bookworm) postgresql=15 python=python3.11 ;;
  trixie) postgresql=17 python=python3.13 ;;
  *) echo "build.sh: no such release: $release (bookworm or trixie)" >&2; exit 2 ;;
esac
image=etl-base:$release

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
have=$(docker image inspect --format '{{ index .Config.Labels "etl.inputs" }}' "$image" 2>/dev/null || true)
if [ "$have" = "$inputs" ]; then
  echo "base image $image: ready"
  exit 0
fi

echo "base image $image: building (about a minute)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
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
  echo "base image $image: mmdebstrap failed, its log is above" >&2
  exit 1
fi

docker import \
  --change 'CMD ["/sbin/init"]' \
  --change 'ENV container=docker' \
  --change "LABEL etl.inputs=$inputs" \
  "$work/root.tar" "$image" >/dev/null
echo "base image $image: ready"
