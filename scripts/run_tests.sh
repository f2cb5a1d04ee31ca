#!/usr/bin/env bash
# Runs the checks, each into its own log, and counts them.
#
#   run_tests.sh lint | fast | all
#
# `all` runs four at a time (TEST_LANES), since a Molecule scenario often waits for its machines. The
# last line is "N passed, N failed", before it what failed. A failed check's log is printed; all logs
# stay in .cache/test-logs/, and so does a table of the seconds per check and phase (times.txt).
set -uo pipefail
cd "$(dirname "$0")/.."

what=${1:?usage: run_tests.sh lint|fast|all}
lanes=${TEST_LANES:-4}
logs=.cache/test-logs
mkdir -p "$logs"
passed=0
failed=()
declare -A running=() # process id → check

start() { # name command…
  local name=$1 started=$SECONDS
  shift
  {
    "$@" 2>&1 </dev/null | python scripts/test_times.py record "$logs/$name.times" >"$logs/$name.log"
    echo "${PIPESTATUS[0]} $((SECONDS - started))" >"$logs/$name.result"
    echo $((SECONDS - started)) >"$logs/$name.seconds"
  } &
  running[$!]=$name
}

finish_one() {
  local pid name code seconds
  wait -n -p pid "${!running[@]}"
  name=${running[$pid]}
  unset "running[$pid]"
  read -r code seconds <"$logs/$name.result"
  rm "$logs/$name.result"
  if [ "$code" = 0 ]; then
    passed=$((passed + 1))
    printf '%-32sok      %4d s\n' "$name" "$seconds"
  else
    failed+=("$name")
    printf '%-32sFAILED  %4d s\n' "$name" "$seconds"
    echo "----- $logs/$name.log"
    # Enough to see the cause; the whole of it is in the file.
    tail -n 150 "$logs/$name.log"
    echo "-----"
  fi
}

check() { # name command…
  start "$@"
  finish_one
}

lint() {
  check yamllint yamllint --strict .
  check ansible-lint ansible-lint --offline
  check ruff-check ruff check .
  check ruff-format ruff format --check .
}

fast() {
  lint
  check pytest pytest -q -n "$(nproc)" --dist loadfile
}

queue() { # name command…
  [ ${#running[@]} -lt "$lanes" ] || finish_one
  start "$@"
}

scenario() { # name
  queue "molecule-$1" env COLUMNS=160 molecule test -s "$1"
}

all() {
  local name site
  # Most scenarios start from the machines that this one builds; meanwhile goes what needs none of them.
  scenario site
  site=$!
  queue pytest pytest -q
  queue ansible-lint ansible-lint --offline
  queue yamllint yamllint --strict .
  queue ruff-check ruff check .
  queue ruff-format ruff format --check .
  scenario bot_server
  scenario hardening
  [ ${#running[@]} -lt "$lanes" ] || finish_one
  scripts/prepared_images.sh wait "$site"
  # The longest first, or at the end the others would wait for it.
  for name in migrate ways_back $(ls --ignore={site,bot_server,hardening,migrate,ways_back} molecule); do
    # shared is none; vm is slow without KVM: make test-vm, and CI once a week.
    [ -e "molecule/$name/molecule.yml" ] && [ "$name" != vm ] || continue
    scenario "$name"
  done
  while [ ${#running[@]} -gt 0 ]; do finish_one; done
  check no-secret-in-logs python scripts/find_secrets_in_logs.py "$logs"
}

rm -f "$logs"/*.times "$logs"/*.seconds
case $what in
  lint | fast | all) "$what" ;;
  *) echo "run_tests.sh: no such set of checks: $what" >&2; exit 2 ;;
esac

# Where only the end of this output is kept, it still says what failed: pytest's and Ansible's words,
# else the last lines, without colours and without molecule's border.
for name in "${failed[@]}"; do
  echo "failed: $name"
  plain=$(sed -E 's/\x1b\[[0-9;]*m//g; s/^ *│ ?//' "$logs/$name.log")
  words=$(awk '/^TASK \[/ { task = $0 } /^(FAILED|ERROR) [^ ]+::/ || /^E  / { print }
    /^(fatal|failed): / { sub(/ \*+$/, "", task); print task; print; rest = 6; next }
    /^(TASK|PLAY) / || /^$/ { rest = 0 } rest-- > 0 { print }' <<<"$plain")
  tail -n 16 <<<"${words:-$plain}" | cut -c1-300
done
echo "Seconds per check and phase, the longest first:"
python scripts/test_times.py table "$logs" | tee "$logs/times.txt"
echo "$passed passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ]
