#!/usr/bin/env bash
# Hyperparameter search by two worker processes, on a journal file and on PostgreSQL: starts a server of its own on loopback,
# runs the tests, and removes it, whatever happens. Installs PostgreSQL if it is missing (with apt-get, as root).
#
#     scripts/test_distributed.sh [PYTHON]
set -euo pipefail
python=${1:-python}

# Debian keeps the programs of the server out of PATH
find_server() { dirname "$(readlink -f "$(command -v initdb)")" 2>/dev/null || ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1; }

bin=$(find_server || true)
if [ -z "$bin" ]; then
    command -v apt-get >/dev/null || { echo "install PostgreSQL: no apt-get here that could" >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql
    bin=$(find_server)
fi

password=$("$python" -c 'import secrets; print(secrets.token_hex(16))')
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

folder=$(mktemp -d)
as_server=()
if [ "$(id -u)" = 0 ]; then # the server refuses to run as root
    as_server=(runuser -u postgres --)
    chown postgres "$folder"
fi
server() { (cd "$folder" && "${as_server[@]}" "$@"); } # from a folder that its user may enter
cleanup() {
    [ ! -d "$folder/data" ] || server "$bin/pg_ctl" --pgdata data --mode immediate stop >/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "$password" | server tee password >/dev/null
server "$bin/initdb" --pgdata data --username search --auth scram-sha-256 --pwfile password >/dev/null
options="-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories="
server "$bin/pg_ctl" --pgdata data --log log --options "$options" --wait start >/dev/null || { cat "$folder/log" >&2; exit 1; }

SB3_IQ_TEST_POSTGRESQL="postgresql+psycopg2://search:$password@127.0.0.1:$port/postgres" "$python" -m pytest tests/test_distributed.py
