#!/bin/bash
# Starts PostgreSQL by the image's own entrypoint, with any user ID.
set -euo pipefail

# Runs one server at a time: after a forced deletion of the pod, the old server may still run when the new one starts.
exec 9>/var/lib/postgresql/.lock
flock 9

# The superuser gets a random password at each start. Nothing needs it: inside the container the socket needs no password.
POSTGRES_PASSWORD=$(head -c 24 /dev/urandom | base64)
export POSTGRES_PASSWORD

# Reads the role's name and password. The kubelet updates these files when the Secret changes.
credentials() {
  # A key that is missing in the Secret must not become an empty password. (`$(<file)` would exit the shell.)
  APP_USER=$(cat /credentials/username) && APP_PASSWORD=$(cat /credentials/password) &&
    [[ -n $APP_USER && -n $APP_PASSWORD ]] && export APP_USER APP_PASSWORD
}

set_passwords() {
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --file /shop/passwords.sql
}

# Sets the role's password whenever it changes. Open sessions continue.
follow_credentials() {
  local known=$APP_USER:$APP_PASSWORD
  while sleep 2; do
    credentials 2>/dev/null || continue
    if [[ $APP_USER:$APP_PASSWORD != "$known" ]] && pg_isready --quiet --host 127.0.0.1 && set_passwords; then
      known=$APP_USER:$APP_PASSWORD
      echo "set the new password of role $APP_USER"
    fi
  done
}

credentials

# Sets the passwords with a server that listens on the socket only. `postgres --single` would need a user name, which a user
# ID that the cluster assigned does not have. (On an empty volume the entrypoint creates the role with role.sql.)
if [[ -s $PGDATA/PG_VERSION ]]; then
  pg_ctl start --pgdata "$PGDATA" --silent --wait --timeout 86400 --options "-c listen_addresses=''"
  set_passwords
  pg_ctl stop --pgdata "$PGDATA" --silent --wait --timeout 86400 --mode fast
fi

follow_credentials 9>&- &
exec docker-entrypoint.sh postgres "$@"
