#!/usr/bin/env bash
# Ansible asks this script for the vault password (ansible.cfg). It is the one that `make secrets`
# wrote beside the inventory in use. Before there are secrets there is nothing to decrypt either,
# so any word will do.
set -euo pipefail
cd "$(dirname "$0")/.."
inventory=${ANSIBLE_INVENTORY:-inventories/production}
[ -d "$inventory" ] || inventory=$(dirname "$inventory")
file=$inventory/secrets/vault_password
if [ -r "$file" ]; then cat "$file"; else echo none-yet; fi
