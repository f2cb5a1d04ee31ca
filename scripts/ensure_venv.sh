#!/usr/bin/env bash
# Makes .venv with exactly the packages of requirements.txt (hashes checked). Does nothing when
# they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.requirements.sha256
want=$(cat requirements.txt ferry/pyproject.toml | sha256sum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

python=${PYTHON:-python3}
"$python" - <<'PY' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}. "
             "Set PYTHON=/path/to/python3.11 and run make again.")
PY

# Debian ships Python without the module that makes virtual environments.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  echo "installing: python3-venv"
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null || {
    echo "Python's venv module is missing and apt-get could not install it: install python3-venv by hand." >&2
    exit 1
  }
fi

echo "virtual environment: installing $(grep -c == requirements.txt) packages into .venv"
version='import sys; print(sys.version)'
if [ "$(.venv/bin/python -c "$version" 2>/dev/null)" != "$("$python" -c "$version")" ] || [ ! -x .venv/bin/uv ]; then
  "$python" -m venv --clear .venv
  # uv installs the rest in seconds; it is itself one of the hashed requirements.
  uv=$(mktemp)
  trap 'rm -f "$uv"' EXIT
  awk '/^uv==/{p=1} p{print} p&&!/\\$/{exit}' requirements.txt >"$uv"
  .venv/bin/pip install --quiet --require-hashes --no-deps -r "$uv"
fi
export UV_SYSTEM_CERTS=1 # some networks have a certificate authority of their own
.venv/bin/uv pip sync --quiet --python .venv --require-hashes requirements.txt
.venv/bin/uv pip install --quiet --python .venv --no-deps -e ferry
echo "$want" >"$stamp"
