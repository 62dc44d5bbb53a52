#!/bin/sh
# Makes the secrets of compose.yaml, each a random one, and keys for an app and for Prometheus.
# What is there already stays; honestproxy must be installed (`make run` does that, into .venv).
set -eu
cd "$(dirname "$0")"
umask 077
PATH="$PWD/../../.venv/bin:$PATH"
mkdir -p secrets data/prometheus data/grafana

once() {  # once FILE COMMAND…: what the command prints, in a file that wasn't there
  file=secrets/$1; shift
  [ -s "$file" ] && return
  "$@" > "$file.new" || { rm -f "$file.new"; exit 1; }
  mv "$file.new" "$file"
}
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
key() {  # from that folder: the settings of this one name files that are there only in a container
  made=$(cd secrets && honestproxy keys create --keys keys.jsonl --json "$@") || return
  printf '%s' "$made" | sed -n 's/.*"key": *"\([^"]*\)".*/\1/p'
}

once upstream-key random
once postgres-password random
once trace-store printf 'postgresql+psycopg://honestproxy:%s@postgres:5432/honestproxy' "$(cat secrets/postgres-password)"
once redis.conf printf 'requirepass %s\n' "$(random)"
once answer-cache printf 'redis://:%s@redis:6379/0' "$(sed 's/^requirepass //' secrets/redis.conf)"
once grafana-password random
once app-key key --name app
once metrics-key key --name prometheus --admin
printf 'RUN_AS=%s:%s\n' "$(id -u)" "$(id -g)" > .env
echo "the app's key is in secrets/app-key, Grafana's password (user admin) in secrets/grafana-password"
