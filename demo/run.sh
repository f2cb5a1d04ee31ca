#!/usr/bin/env bash
# The demo: the product's own playbooks against five local machines.
#
#   run.sh journey | rollback | clean      (make demo | make demo-rollback | make demo-clean)
#   run.sh bench                           (make bench-cutover)
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH="$PWD/.venv/bin:$PATH"
export ETL_CACHE="$PWD/.cache"
export ANSIBLE_CONFIG="$PWD/ansible.cfg"
export ANSIBLE_INVENTORY=inventories/demo
export ANSIBLE_NOCOLOR=${NO_COLOR:+1}
[ -n "${NO_COLOR:-}" ] || export ANSIBLE_FORCE_COLOR=1
logs=artifacts/demo
started=$SECONDS
step=0

say() { printf '\n\033[1m== %s\033[0m  (%d:%02d)\n' "$*" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

# Runs one playbook as a user would; its output is on the screen and in a log.
play() { # what-it-does playbook
  step=$((step + 1))
  say "$step. $1:  ansible-playbook $2"
  ansible-playbook "$2" 2>&1 | tee "$logs/$(printf %02d $step)-$(basename "$2" .yml).log"
}

# The stage that only prepares the world is told in a line; its log is kept.
quietly() { # what-it-does playbook arguments…
  step=$((step + 1))
  say "$step. $1"
  local log
  log=$logs/$(printf %02d $step)-$(basename "$2" .yml).log
  ansible-playbook "${@:2}" >"$log" 2>&1 || { cat "$log"; echo "This step failed; its output is above and in $log" >&2; exit 1; }
}

# Of this checkout, and running: after a reboot, or in another clone, its machines are left over.
is_there() {
  [ -d inventories/demo/secrets ] && [ "$(docker inspect --format '{{.State.Running}}' demo-old-pc 2>/dev/null)" = true ]
}

journey() {
  demo/base_image/build.sh bookworm
  [ -d inventories/demo/secrets ] || python scripts/make_secrets.py inventories/demo
  # As an operator does it, but for the editor: the demo's token opens nothing real.
  EDITOR="sed -i 's/^# vault_discord_bot_token: .*/vault_discord_bot_token: token-of-the-fake-discord/'" \
    ansible-vault edit --vault-password-file inventories/demo/secrets/vault_password inventories/demo/group_vars/all/vault.yml
  mkdir -p "$logs" && rm -f "$logs"/*
  quietly "Five machines boot; two become the old PC with its bot and the game server" demo/world.yml
  play "Two bare servers are built" site.yml
  play "The game server lets the new bot fetch files" playbooks/game_access.yml
  play "The move is rehearsed while the old bot works" playbooks/rehearse.yml
  play "The move" migrate.yml
  play "The nightly backup, now" playbooks/backup.yml
  play "A match is played, a player asks, and everything is verified" demo/prove.yml
  say "done"
  cat "$logs/summary.txt"
}

rollback() {
  # Without a demo there is nothing to go back from: make it first.
  is_there || journey
  play "Back to the old PC" rollback.yml
  quietly "The old PC is asked what it has" demo/prove_rollback.yml
  say "done"
  cat "$logs/rollback_summary.txt"
}

# How long nobody answers while the bot moves and when it goes back, by the length of its history.
bench() {
  is_there || journey
  local rows move figures=artifacts/demo/cutover.txt
  rm -f "$figures"
  ! grep -q '"stage": "settled"' artifacts/demo/migration.json || quietly "The bot is brought back to the old PC" rollback.yml
  for rows in ${BENCH_ROWS:-16000 100000 1000000}; do
    move=artifacts/demo/move_of_$rows
    mkdir -p "$move"
    quietly "Its history gets $rows rows" demo/grow.yml --extra-vars "rows=$rows"
    quietly "The move" migrate.yml --extra-vars migrate_watch_minutes=0
    cp artifacts/demo/{migration,verify}.json "$move"
    docker exec demo-stranger python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:8480/sessions").read().decode())' \
      >"$move/sessions.json"
    quietly "The way back" rollback.yml
    python demo/files/cutover_figures.py "$move" artifacts/demo/migration.json "$figures"
  done
  say "done"
  cat "$figures"
}

clean() {
  if docker info >/dev/null 2>&1; then
    docker ps -aq --filter label=etl.world=demo | xargs -r docker rm -f -v >/dev/null
    docker network ls -q --filter label=etl.world=demo | xargs -r docker network rm >/dev/null
  fi
  rm -rf artifacts/demo inventories/demo/secrets inventories/demo/group_vars/all/vault.yml \
    .cache/*.demo .cache/*.demo.* "$HOME/.ansible/cp-demo"
  echo "The demo is gone. (The base image and .venv stay; make clean removes those too.)"
}

case ${1:-} in
  journey | rollback | bench | clean) "$1" ;;
  *) echo "usage: demo/run.sh journey|rollback|bench|clean" >&2; exit 2 ;;
esac
