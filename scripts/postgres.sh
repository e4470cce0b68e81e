# shellcheck shell=bash
# A throw-away Postgres for scripts that source this: started in a temporary directory, as a user without
# rights when we are root, gone with stop_postgres. Expects scripts/setup postgres and a function `say`.

postgres_directory=
postgres_binaries=
postgres_as=()

# Postgres refuses to run as root.
choose_postgres_user() {
  [ "$(id -u)" -eq 0 ] || return 0
  local user
  for user in postgres nobody; do
    if id "$user" >/dev/null 2>&1; then
      postgres_as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
      chown "$user" "$postgres_directory"
      return 0
    fi
  done
  say 'we are root, and there is no user that Postgres could run as'
  return 1
}

# Of a session of its own: Ctrl-C is for what uses the server, and that needs it to end in order.
postgres_program() {
  (
    cd "$postgres_directory" || exit
    LC_ALL=C setsid --wait "${postgres_as[@]}" "$postgres_binaries/$1" "${@:2}"
  ) </dev/null
}

# start_postgres NAME SETTING...   sets DATABASE_URL
start_postgres() {
  local name=$1 port setting settings=
  for setting in "${@:2}"; do
    settings="$settings -c $setting"
  done
  # The newest where distributions put them, else the PATH.
  postgres_binaries=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort --version-sort | tail -n 1)
  [ -n "$postgres_binaries" ] || postgres_binaries=$(command -v initdb)
  postgres_binaries=$(dirname "$postgres_binaries")
  postgres_directory=$(mktemp -d "${TMPDIR:-/tmp}/weir-$name-pg-XXXXXXXX")
  choose_postgres_user
  postgres_program initdb -D data --auth=trust --username=weir --encoding=UTF8 --locale=C >/dev/null
  for _ in 1 2 3 4 5; do
    # Another process may have the port: then the server ends and the next try takes another.
    port=$((20000 + RANDOM % 12000))
    if postgres_program pg_ctl -D data -s -w -l log -o "-c listen_addresses=127.0.0.1 -c port=$port \
      -c unix_socket_directories='$postgres_directory'$settings" start; then
      export DATABASE_URL="postgres://weir@127.0.0.1:$port/postgres"
      return 0
    fi
  done
  tail -n 5 "$postgres_directory/log" >&2
  return 1
}

stop_postgres() {
  [ -n "$postgres_directory" ] || return 0
  postgres_program pg_ctl -D data -s -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$postgres_directory"
  postgres_directory=
}
