#!/bin/bash
# Starts PostgreSQL by way of the image's own entrypoint, under any user number.
set -euo pipefail

# One server at a time: where a pod was deleted by force, its server may still be there when the next one starts.
exec 9>/var/lib/postgresql/.lock
flock 9

# Nobody needs the superuser's password: who may enter the container is trusted on the socket. It is another at each start.
POSTGRES_PASSWORD=$(head -c 24 /dev/urandom | base64)
export POSTGRES_PASSWORD

# By a server that listens on the socket only: `postgres --single` needs a name for its user number, which a number that
# the cluster has chosen does not have. (On an empty volume the entrypoint makes the role, with role.sql.)
if [[ -s $PGDATA/PG_VERSION ]]; then
  pg_ctl start --pgdata "$PGDATA" --silent --wait --timeout 86400 --options "-c listen_addresses=''"
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --file /shop/passwords.sql
  pg_ctl stop --pgdata "$PGDATA" --silent --wait --timeout 86400 --mode fast
fi

exec docker-entrypoint.sh postgres "$@"
