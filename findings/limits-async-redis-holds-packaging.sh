#!/usr/bin/env bash
# limits 5.8.0 with its extra async-redis cannot be installed beside virtualenv 21.15.11, and so not beside pre-commit.
#
# An expert expects: a rate limit library and a tool for git hooks share no constraint, and the extra "async-redis"
# brings what limits.aio needs to reach Redis.
# What happens: the extra brings a second Redis driver, coredis, which allows packaging only below 26, while virtualenv
# wants 26.3 or newer. pip says:
#   ERROR: Cannot install coredis==5.7.0, limits[async-redis]==5.8.0 and virtualenv==21.15.11 because these package
#   versions have conflicting dependencies.
# The extra is not needed where the storage runs on redis-py (implementation="redispy"): plain limits and redis install
# beside virtualenv, and the storage says: RedispyBridge.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

# coredis is named in its newest release that limits allows, so that pip does not try the older ones for minutes.
if pip install --dry-run 'limits[async-redis]==5.8.0' 'coredis==5.7.0' 'virtualenv==21.15.11' 2>"$folder/said"; then
  echo "changed: the two can be installed together" >&2
  exit 1
fi
grep 'conflicting dependencies' "$folder/said" || { cat "$folder/said" >&2; exit 1; }

pip install 'limits==5.8.0' 'redis==7.1.0' 'virtualenv==21.15.11'
"$folder/venv/bin/python" - <<'PY'
from importlib.util import find_spec
from limits.aio.storage import RedisStorage

storage = RedisStorage("async+redis://127.0.0.1:1", implementation="redispy")  # nothing is asked of a server
assert find_spec("coredis") is None
assert type(storage.bridge).__name__ == "RedispyBridge", type(storage.bridge)
print("plain limits 5.8.0 and redis 7.1.0 beside virtualenv 21.15.11:", type(storage.bridge).__name__)
PY
