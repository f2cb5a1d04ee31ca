#!/usr/bin/env bash
# The images of a built database server and a built bot server, from which the scenarios start whose
# subject is what comes after site.yml.
#
#   prepared_images.sh key      print the key of this checkout's images
#   prepared_images.sh find     the same where there are such images, else nothing
#   prepared_images.sh build    make them where they are missing: the first half of the scenario site
#   prepared_images.sh keep     make them from the machines of that scenario
#   prepared_images.sh wait PID wait for them while that process lives, which is about to make them
#
# The machines of the scenario `site` are kept as images right after its first site.yml
# (`keep`). The key is a hash of all that this run has read and of the base
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

keep() { # key
  local role image
  docker exec site-database-vps systemctl stop postgresql@15-main
  for role in database bot; do
    docker commit "site-$role-vps" "etl-prepared:raw-$role" >/dev/null
    # Without what must not be the same on two machines.
    docker rm -f "etl-prepare-$role" >/dev/null 2>&1 || true
    docker run --name "etl-prepare-$role" --network none "etl-prepared:raw-$role" /bin/sh -c \
      'rm -rf /etc/ssh/ssh_host_* /var/log/journal/* /root/.ssh/authorized_keys'
    docker commit --change 'CMD ["/sbin/init"]' "etl-prepare-$role" "etl-prepared:$role-$1" >/dev/null
    docker rm "etl-prepare-$role" >/dev/null
  done
  docker exec site-database-vps systemctl start postgresql@15-main
  # Those of other states of the sources; one that a machine still runs on stays.
  for image in $(docker images --format '{{ .Repository }}:{{ .Tag }}' etl-prepared | grep -v -- "-$1$"); do
    docker rmi --no-prune "$image" >/dev/null 2>&1 || true
  done
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
    molecule side-effect -s site
    molecule destroy -s site
    ;;
  keep)
    # Whoever edits a role while it builds gets no image of it: the key was noted before (molecule/site/prepare.yml).
    [ "$(key)" != "$(cat "$ETL_CACHE/world.site/prepared.key")" ] || keep "$(key)"
    ;;
  wait)
    while kill -0 "$2" 2>/dev/null && ! are_there "$(key)"; do sleep 2; done
    ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
