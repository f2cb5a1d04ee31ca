#!/usr/bin/env bash
# Runs the checks one after the other, each into its own log, and counts them.
#
#   run_tests.sh lint | fast | all
#
# The last line is "N passed, N failed". A failed check's log is printed; all logs stay in
# .cache/test-logs/.
set -uo pipefail
cd "$(dirname "$0")/.."

what=${1:?usage: run_tests.sh lint|fast|all}
logs=.cache/test-logs
mkdir -p "$logs"
passed=0
failed=()

check() { # name command…
  local name=$1 started=$SECONDS
  shift
  printf '%-32s' "$name"
  if "$@" >"$logs/$name.log" 2>&1 </dev/null; then
    passed=$((passed + 1))
    printf 'ok      %4d s\n' $((SECONDS - started))
  else
    failed+=("$name")
    printf 'FAILED  %4d s\n' $((SECONDS - started))
    echo "----- $logs/$name.log"
    # Enough to see the cause; the whole of it is in the file.
    tail -n 150 "$logs/$name.log"
    echo "-----"
  fi
}

lint() {
  check yamllint yamllint --strict .
  check ansible-lint ansible-lint --offline
  check ruff-check ruff check .
  check ruff-format ruff format --check .
}

fast() {
  lint
  check pytest pytest -q
}

all() {
  fast
  local scenario
  for scenario in molecule/*/molecule.yml; do
    scenario=$(basename "$(dirname "$scenario")")
    [ "$scenario" != vm ] || continue # slow without KVM: make test-vm, and CI once a week
    check "molecule-$scenario" env COLUMNS=160 molecule test -s "$scenario"
  done
  check no-secret-in-logs python scripts/find_secrets_in_logs.py "$logs"
}

case $what in
  lint | fast | all) "$what" ;;
  *) echo "run_tests.sh: no such set of checks: $what" >&2; exit 2 ;;
esac

[ ${#failed[@]} -eq 0 ] || echo "failed: ${failed[*]}"
echo "$passed passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ]
