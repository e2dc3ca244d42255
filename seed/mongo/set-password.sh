#!/bin/bash
# Gives a user the password that is the first line of standard input: the service's or, with the argument `root`, MongoDB's
# administrator. The container's own commands use the password that its settings have: write it into the file that they name, too.
set -euo pipefail
case "$*" in
  '') export RECORDS_MONGO_WHOSE=RECORDS_MONGO ;;
  root) export RECORDS_MONGO_WHOSE=MONGO_INITDB_ROOT ;;
  *) echo "records-mongo: no argument, or root, but not: $*" >&2; exit 1 ;;
esac
IFS= read -r RECORDS_MONGO_NEW_PASSWORD || { echo 'records-mongo: the new password belongs on standard input' >&2; exit 1; }
export RECORDS_MONGO_NEW_PASSWORD
HOME=/tmp exec mongosh --quiet --norc --nodb --file /usr/local/share/records/set-password.js </dev/null
