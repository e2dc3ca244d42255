#!/bin/bash
# Gives the service's user the password that is the first line of standard input.
set -euo pipefail
IFS= read -r RECORDS_MONGO_NEW_PASSWORD || { echo 'records-mongo: the new password belongs on standard input' >&2; exit 1; }
export RECORDS_MONGO_NEW_PASSWORD
HOME=/tmp exec mongosh --quiet --norc --nodb --file /usr/local/share/records/set-password.js </dev/null
