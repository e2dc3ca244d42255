#!/bin/bash
# Runs before the public image's entrypoint, which initialises an empty data directory and treats any other as initialised. So after
# a failed or interrupted load, the next start would serve an incomplete database. Three files in the data directory distinguish the
# states:
#
#   .records-loading     the directory was empty, and the load began: it holds no data of yours yet
#   .records-loaded      seed, user and marker are in the database
#   .records-replicated  the server is a replica set of one member, which tells the service every change
set -euo pipefail

data=/data/db

die() {
  echo "records-mongo: $*" >&2
  exit 1
}

# Prints $NAME, or the content of the file $NAME_FILE.
value_of() {
  local file=${1}_FILE
  if [ -n "${!1:-}" ]; then
    echo "${!1}"
  elif [ -n "${!file:-}" ]; then
    cat "${!file}" || die "cannot read \$$file"
  fi
}

case "${1:-mongod}" in
  # Arguments that are only options belong to mongod: the public entrypoint adds its name.
  mongod | -*) ;;
  *) exec docker-entrypoint.sh "$@" ;;
esac

# Both are needed on every start: the public entrypoint turns authentication on only if it has a root user, and the health
# check reads as the service's user.
for name in MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD RECORDS_MONGO_USERNAME RECORDS_MONGO_PASSWORD; do
  value=$(value_of "$name")
  [ -n "$value" ] || die "$name or ${name}_FILE must be set on every start"
done

[ -w "$data" ] || die "$data is not writable for user $(id -u): give the volume to it"

if [ -e "$data/.records-loading" ] && [ ! -e "$data/.records-loaded" ]; then
  echo 'records-mongo: the last load of the seed did not finish: beginning again' >&2
  # The file .records-loading stays, so that a stop during this removal is noticed.
  find "$data" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name .records-loading -exec rm -rf {} +
fi

if [ ! -e "$data/.records-loaded" ]; then
  if [ -e "$data/WiredTiger" ]; then
    die "$data holds a database that this image did not load: it is left alone." \
      "Use an empty volume; or, if it is to be served as it is, create the file .records-loaded in it, and in the database" \
      "the users that the settings name: an administrator, and the service's with the role read"
  fi
  touch "$data/.records-loading"
fi

# Members of a set authenticate to each other by this file. A single member can create it at each start; mongod refuses a file that
# other users may read.
key=/tmp/records-mongo.key
rm -f "$key"
(umask 0377; head -c 96 /dev/urandom | base64 -w 0 >"$key")

[ "${1:-}" = mongod ] || set -- mongod "$@"
# The default oplog takes at least 990 MiB. This size holds some hundred thousand changes.
set -- "$@" --replSet records --keyFile "$key" --oplogSize 256

# The shell stays process 1: it forwards signals, and reaps the initiator and the remains of health checks.
docker-entrypoint.sh "$@" &
server=$!
trap 'kill -TERM "$server" 2>/dev/null' TERM INT QUIT HUP

if [ ! -e "$data/.records-replicated" ]; then
  if [ -e "$data/.records-loaded" ]; then
    echo 'records-mongo: the data is of a server alone: it becomes a replica set of one member, with all of it kept' >&2
  fi
  records-mongo-initiate "$server" &
fi

status=0
wait "$server" || status=$?
# A signal ends a wait early.
while kill -0 "$server" 2>/dev/null; do
  status=0
  wait "$server" || status=$?
done
exit "$status"
