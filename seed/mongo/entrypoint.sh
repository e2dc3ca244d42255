#!/bin/bash
# In front of the public image's entrypoint, which initialises an empty data directory and takes any other for
# initialised. So a load that failed, or a container that was stopped during it, would pass for a whole database on the
# next start. Two files in the data directory tell them apart:
#
#   .records-loading   the directory was empty, and the load began: nothing in it is anybody's data yet
#   .records-loaded    seed, user and marker are in the database
set -euo pipefail

data=/data/db

die() {
  echo "records-mongo: $*" >&2
  exit 1
}

# $NAME, or what the file $NAME_FILE holds.
value_of() {
  local file=${1}_FILE
  if [ -n "${!1:-}" ]; then
    echo "${!1}"
  elif [ -n "${!file:-}" ]; then
    cat "${!file}" || die "cannot read \$$file"
  fi
}

case "${1:-mongod}" in
  # Options alone are mongod's: the public entrypoint puts its name before them.
  mongod | -*) ;;
  *) exec docker-entrypoint.sh "$@" ;;
esac

# On every start: the public entrypoint turns authentication on only if it has a root user, and the health check asks as the
# service's.
for name in MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD RECORDS_MONGO_USERNAME RECORDS_MONGO_PASSWORD; do
  value=$(value_of "$name")
  [ -n "$value" ] || die "$name or ${name}_FILE must be set on every start"
done

[ -w "$data" ] || die "$data is not writable for user $(id -u): give the volume to it"

if [ -e "$data/.records-loading" ] && [ ! -e "$data/.records-loaded" ]; then
  echo 'records-mongo: the last load of the seed did not finish: beginning again' >&2
  # Not the note of it: without that, what a stop in the middle of this left would pass for somebody's database.
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

exec docker-entrypoint.sh "$@"
