#!/bin/bash
# Makes the server a replica set of one member, once the seed is loaded. Ends when that is done, or when the server, the process $1,
# has ended.
set -euo pipefail
export RECORDS_MONGO_SERVER=$1
HOME=/tmp mongosh --quiet --norc --nodb --file /usr/local/share/records/initiate.js </dev/null
# If this fails, the next start initiates again, which changes nothing.
touch /data/db/.records-replicated
