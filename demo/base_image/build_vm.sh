#!/usr/bin/env bash
# Makes a disk for virtual machines out of the containers' base image: the same bare Debian, and a
# kernel of its own.
#
#   demo/base_image/build_vm.sh bookworm|trixie DIRECTORY
#
# Leaves disk.raw (sparse, one ext4 file system), vmlinuz and initrd.img in DIRECTORY. Does nothing
# when they were made from the present base image.
set -euo pipefail
release=${1:?usage: build_vm.sh bookworm|trixie DIRECTORY}
directory=$(realpath -m "${2:?usage: build_vm.sh bookworm|trixie DIRECTORY}")
cd "$(dirname "$0")"

name=etl-vm-build-$release
./build.sh "$release"
inputs="$(docker image inspect --format '{{ .Id }}' "etl-base:$release") $(sha256sum <build_vm.sh)"
if [ "$(cat "$directory/inputs" 2>/dev/null)" = "$inputs" ]; then
  echo "virtual machine's disk, $release: ready"
  exit 0
fi

echo "virtual machine's disk, $release: building (about two minutes)"
mkdir -p "$directory"
rm -f "$directory/inputs"
work=$(mktemp -d)
trap 'rm -rf "$work"; docker rm -f "$name" >/dev/null 2>&1 || true' EXIT
docker rm -f "$name" >/dev/null 2>&1 || true

# QEMU gets this kernel and this initrd directly, so that packages need not write a new initrd.
# The libraries of what the roles install are there already: unpacking and compiling them takes an
# emulated processor many minutes. The packages themselves are not.
# What the roles install only where the kernel is the host's own lies in the cache as well.
# The network is told on the kernel's command line (ip=…), which systemd turns into networkd's files.
if ! docker run --name "$name" --env DEBIAN_FRONTEND=noninteractive "etl-base:$release" sh -euc '
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends linux-image-cloud-amd64 initramfs-tools zstd
  apt-get install -qq -y --no-install-recommends --download-only apparmor-utils
  apt-get install -qq -y --no-install-recommends $(ls /var/cache/apt/archives |
    sed -En "s/^((lib|python3-|locales)[^_]*)_.*/\1/p" | grep -Ev "^(libpam|python3-(pip|venv)$)")
  systemctl enable systemd-networkd.service systemd-network-generator.service serial-getty@ttyS0.service
  printf "/dev/vda / ext4 defaults,errors=remount-ro 0 1\n" >/etc/fstab
  sed -i "s/^MODULES=.*/MODULES=most/" /etc/initramfs-tools/initramfs.conf
  update-initramfs -u -k all
  sed -i "s/^update_initramfs=.*/update_initramfs=no/" /etc/initramfs-tools/update-initramfs.conf
  rm -f /etc/machine-id && touch /etc/machine-id
' >"$work/log" 2>&1; then
  tail -n 40 "$work/log" >&2
  echo "virtual machine's disk, $release: the kernel could not be installed, the log is above" >&2
  exit 1
fi

mkdir "$work/root"
docker export "$name" | tar -x -C "$work/root" --numeric-owner
cp /etc/resolv.conf "$work/root/etc/resolv.conf"
rm -f "$work/root/.dockerenv"
# New files, since a machine that runs reads its own again when it reboots.
rm -f "$directory"/{vmlinuz,initrd.img,disk.raw}
cp -L "$work/root/vmlinuz" "$directory/vmlinuz"
cp -L "$work/root/initrd.img" "$directory/initrd.img"
truncate --size 8G "$directory/disk.raw"
mkfs.ext4 -q -F -d "$work/root" "$directory/disk.raw"
echo "$inputs" >"$directory/inputs"
echo "virtual machine's disk, $release: ready"
