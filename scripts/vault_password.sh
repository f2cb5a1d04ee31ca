#!/usr/bin/env bash
# Ansible asks this script for the vault password (ansible.cfg). It is the one that `make secrets`
# wrote beside the inventory in use: -i of the command that asks, else ANSIBLE_INVENTORY, else
# production. Before there are secrets there is nothing to decrypt either, so any word will do.
set -euo pipefail

asking=/proc/$PPID
inventories=()
previous=
while IFS= read -r -d '' argument; do
  case $previous in -i | --inventory | --inventory-file) inventories+=("$argument") ;; esac
  case $argument in
    --inventory=* | --inventory-file=*) inventories+=("${argument#*=}") ;;
    -i?*) inventories+=("${argument#-i}") ;;
  esac
  previous=$argument
done <"$asking/cmdline"
if [ ${#inventories[@]} -gt 0 ]; then
  cd -P "$asking/cwd" # their paths begin where the command was typed
else
  cd "$(dirname "$0")/.."
  inventories=("${ANSIBLE_INVENTORY:-inventories/production}")
fi

vault=
for inventory in "${inventories[@]}"; do
  [ -d "$inventory" ] || inventory=$(dirname "$inventory")
  if [ -r "$inventory/secrets/vault_password" ]; then
    cat "$inventory/secrets/vault_password"
    exit
  fi
  [ ! -e "$inventory/group_vars/all/vault.yml" ] || vault=$inventory
done
if [ -n "$vault" ]; then
  echo "$vault/group_vars/all/vault.yml is there, but $vault/secrets/vault_password, which opens it, is not: take it from your copy." >&2
  exit 1
fi
echo none-yet
