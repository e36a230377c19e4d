#!/bin/bash
# Starts PostgreSQL by way of the image's own entrypoint.
set -euo pipefail

# One server at a time: where a pod was deleted by force, its server may still be there when the next one starts.
exec 9>/var/lib/postgresql/.lock
flock 9

# Nobody needs the superuser's password: who may enter the container is trusted on the socket. It is another at each start.
POSTGRES_PASSWORD=$(head -c 24 /dev/urandom | base64)
export POSTGRES_PASSWORD

# The Secret counts, also with a volume from before: an uninstalled release left it behind, or the password was changed.
# (On an empty volume the entrypoint makes the role, with role.sql.)
if [[ -s $PGDATA/PG_VERSION ]]; then
  printf "ALTER ROLE \"%s\" PASSWORD '%s'\n" \
    "$APP_USER" "${APP_PASSWORD//\'/\'\'}" "$POSTGRES_USER" "${POSTGRES_PASSWORD//\'/\'\'}" |
    postgres --single -D "$PGDATA" postgres >/dev/null
fi

exec docker-entrypoint.sh postgres "$@"
