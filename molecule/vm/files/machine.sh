#!/usr/bin/env bash
# Starts or stops a virtual machine on a Docker network's bridge.
#
#   machine.sh start NAME ADDRESS GATEWAY BRIDGE ROOTS_PUBLIC_KEY IMAGE_DIRECTORY DIRECTORY
#   machine.sh stop NAME DIRECTORY
#
# With KVM where it works, without it where it does not (five times as slow). What QEMU prints and
# the machine's console are in DIRECTORY. Needs root for the bridge.
set -euo pipefail

stop() { # NAME DIRECTORY
  local pidfile=$2/pid
  if [ -f "$pidfile" ] && kill "$(cat "$pidfile")" 2>/dev/null; then
    while kill -0 "$(cat "$pidfile")" 2>/dev/null; do sleep 0.2; done
  fi
  ip link delete "$(tap "$1")" 2>/dev/null || true
  rm -rf "$2"
}

tap() { # a network device's name has at most 15 characters
  echo "etl-$(printf '%s' "$1" | cksum | cut -d' ' -f1)" | cut -c1-15
}

# KVM may be there and not work: a machine in a machine hangs before its kernel's first word.
accelerator() { # IMAGE_DIRECTORY
  if [ -w /dev/kvm ] && timeout 20 qemu-system-x86_64 -machine q35 -accel kvm -cpu max -m 256 \
    -kernel "$1/vmlinuz" -append "console=ttyS0 panic=-1" -no-reboot -display none -monitor none \
    -serial stdio 2>/dev/null | grep -qm1 "Linux version"; then
    echo kvm
  else
    echo tcg
  fi
}

start() { # NAME ADDRESS GATEWAY BRIDGE ROOTS_PUBLIC_KEY IMAGE_DIRECTORY DIRECTORY
  local name=$1 address=$2 gateway=$3 bridge=$4 key=$5 image=$6 directory=$7
  local device mac accelerator processors=2 processor=max options=""
  device=$(tap "$name")
  mac=$(printf '52:54:00:%02x:%02x:%02x' $(tr . ' ' <<<"${address#*.}"))
  accelerator=$(accelerator "$image")
  if [ "$accelerator" != kvm ]; then
    # An emulated processor is quicker alone (plain memory accesses), with four levels of page
    # tables, and without guards against faults that only real ones have. Virtualisation within it
    # would make udev load KVM's modules for a minute.
    processors=1 processor=max,la57=off,svm=off options=mitigations=off
  fi
  mkdir -p "$directory"
  cp --sparse=always "$image/disk.raw" "$directory/disk.raw"
  printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$name" >"$directory/hosts"
  debugfs -w -f - "$directory/disk.raw" >/dev/null 2>&1 <<DEBUGFS
rm /etc/hosts
write $directory/hosts /etc/hosts
DEBUGFS
  ip tuntap add "$device" mode tap
  ip link set "$device" master "$bridge" up
  nice -n 5 qemu-system-x86_64 \
    -name "$name" -machine q35 -accel "$accelerator" -cpu "$processor" -smp "$processors" -m 1536 \
    -kernel "$image/vmlinuz" -initrd "$image/initrd.img" \
    -append "root=/dev/vda rw console=ttyS0 quiet $options net.ifnames=0 systemd.hostname=$name ip=$address::$gateway:255.255.255.0:$name:eth0:none" \
    -drive "file=$directory/disk.raw,format=raw,if=virtio,cache=unsafe" \
    -netdev "tap,id=net,ifname=$device,script=no,downscript=no" \
    -device "virtio-net-pci,netdev=net,mac=$mac" -device virtio-rng-pci \
    -smbios "type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root=$(base64 -w0 "$key")" \
    -display none -serial "file:$directory/console" -monitor none \
    -daemonize -pidfile "$directory/pid" 2>"$directory/qemu.log" || {
    cat "$directory/qemu.log" >&2
    return 1
  }
}

case ${1:-} in
  start | stop) "$@" ;;
  *) echo "usage: machine.sh start NAME ADDRESS GATEWAY BRIDGE ROOTS_PUBLIC_KEY IMAGE_DIRECTORY DIRECTORY | stop NAME DIRECTORY" >&2; exit 2 ;;
esac
