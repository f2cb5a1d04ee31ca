#!/bin/sh
# Make sure that PostgreSQL's server programs are on this machine: the tests start clusters of
# their own from /usr/lib/postgresql/<major>/bin. Says nothing when they are there already.
#
# Where they are missing, the distribution's package is installed with apt. Debian's package
# would create and start a system-wide cluster "main"; nobody asked for one, so that is turned off
# for the length of the installation.
#
# Undo: apt-get purge postgresql 'postgresql-*' && apt-get autoremove
set -eu

for program in /usr/lib/postgresql/*/bin/postgres; do
    if [ -x "$program" ]; then
        exit 0
    fi
done

if ! command -v apt-get >/dev/null; then
    echo "ensure_postgres: no PostgreSQL server below /usr/lib/postgresql and no apt-get here;" \
        "install the server package of your distribution" >&2
    exit 1
fi

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "ensure_postgres: the package 'postgresql' is missing; run this as root" >&2
        exit 1
    fi
    as_root="sudo"
fi

install_packages() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

log="$(mktemp)"
no_cluster=/etc/postgresql-common/createcluster.d/zz-no-main-cluster.conf
clean_up() {
    $as_root rm -f "$no_cluster"
    rm -f "$log"
}
trap clean_up EXIT

echo "ensure_postgres: installing the PostgreSQL server package" >&2
if ! {
    $as_root apt-get update -q &&
        install_packages postgresql-common &&
        $as_root mkdir -p "${no_cluster%/*}" &&
        echo "create_main_cluster = false" | $as_root tee "$no_cluster" &&
        install_packages postgresql
} >"$log" 2>&1; then
    cat "$log" >&2
    echo "ensure_postgres: apt could not install PostgreSQL (its output is above)" >&2
    exit 1
fi
