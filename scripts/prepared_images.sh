#!/usr/bin/env bash
# The images of a built database server and a built bot server, from which the scenarios start whose
# subject is what comes after site.yml.
#
#   prepared_images.sh key      print the key of this checkout's images
#   prepared_images.sh find     the same where there are such images, else nothing
#   prepared_images.sh build    make them where they are missing: the first half of the scenario site
#   prepared_images.sh wait PID wait for them while that process lives, which is about to make them
#
# The machines of the scenario `site` are kept as images right after its first site.yml
# (molecule/shared/keep_images.yml). The key is a hash of all that this run has read and of the base
# image, so a stale one is never found; each scenario then runs site.yml with its own settings over
# it. Where there is no image, machines are bare and take longer.
set -euo pipefail
cd "$(dirname "$0")/.."
export ETL_CACHE=${ETL_CACHE:-$PWD/.cache}

key() {
  {
    docker image inspect --format '{{ .Id }}' etl-base:bookworm
    cat "$ETL_CACHE/operator_key.pub" 2>/dev/null || echo "no key yet"
    find ansible.cfg site.yml group_vars playbooks plugins roles ferry/requirements.txt ferry/src reference_bot \
      requirements.txt scripts/make_secrets.py scripts/prepared_images.sh molecule/site molecule/shared \
      -type f -not -path '*/__pycache__/*' -not -path 'molecule/site/tests/*' -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum | cut -c1-16
}

are_there() {
  docker image inspect "etl-prepared:database-$1" "etl-prepared:bot-$1" >/dev/null 2>&1
}

case ${1:-} in
  key) key ;;
  find) ! are_there "$(key)" || key ;;
  build)
    are_there "$(key)" && exit 0
    for step in destroy create prepare converge; do molecule "$step" -s site; done
    molecule side_effect -s site
    molecule destroy -s site
    ;;
  wait)
    while kill -0 "$2" 2>/dev/null && ! are_there "$(key)"; do sleep 2; done
    ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
