#!/bin/bash
# Starts PostgreSQL by way of the image's own entrypoint, under any user number.
set -euo pipefail

# One server at a time: where a pod was deleted by force, its server may still be there when the next one starts.
exec 9>/var/lib/postgresql/.lock
flock 9

# Nobody needs the superuser's password: who may enter the container is trusted on the socket. It is another at each start.
POSTGRES_PASSWORD=$(head -c 24 /dev/urandom | base64)
export POSTGRES_PASSWORD

# The Secret with the service's role, as it is now: the kubelet brings what changes in it into these files.
credentials() {
  # A key that somebody took out of the Secret must not become an empty password. (`$(<file)` would end the shell there.)
  APP_USER=$(cat /credentials/username) && APP_PASSWORD=$(cat /credentials/password) &&
    [[ -n $APP_USER && -n $APP_PASSWORD ]] && export APP_USER APP_PASSWORD
}

set_passwords() {
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --file /shop/passwords.sql
}

# Gives the role its new password, whenever there is one. Sessions that are open stay.
follow_credentials() {
  local known=$APP_USER:$APP_PASSWORD
  while sleep 2; do
    credentials 2>/dev/null || continue
    if [[ $APP_USER:$APP_PASSWORD != "$known" ]] && pg_isready --quiet --host 127.0.0.1 && set_passwords; then
      known=$APP_USER:$APP_PASSWORD
      echo "the role $APP_USER has the password that the Secret has now"
    fi
  done
}

credentials

# By a server that listens on the socket only: `postgres --single` needs a name for its user number, which a number that
# the cluster has chosen does not have. (On an empty volume the entrypoint makes the role, with role.sql.)
if [[ -s $PGDATA/PG_VERSION ]]; then
  pg_ctl start --pgdata "$PGDATA" --silent --wait --timeout 86400 --options "-c listen_addresses=''"
  set_passwords
  pg_ctl stop --pgdata "$PGDATA" --silent --wait --timeout 86400 --mode fast
fi

follow_credentials 9>&- &
exec docker-entrypoint.sh postgres "$@"
