#!/usr/bin/env bash
# Brings QEMU for x86 where there is none.
set -euo pipefail

command -v qemu-system-x86_64 >/dev/null && command -v mkfs.ext4 >/dev/null && exit 0
command -v apt-get >/dev/null || {
  echo "This machine has no QEMU (qemu-system-x86_64) and no apt-get to install it: please install it by hand." >&2
  exit 1
}
echo "installing: QEMU"
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 e2fsprogs iproute2 >/dev/null
