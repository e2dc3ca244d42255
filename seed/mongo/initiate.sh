#!/bin/bash
# Makes the server a replica set of one member, once it runs in earnest. Ends when that is done, or the process $1, which is the
# server, has ended.
set -euo pipefail
export RECORDS_MONGO_SERVER=$1
HOME=/tmp mongosh --quiet --norc --nodb --file /usr/local/share/records/initiate.js </dev/null
# Without it the next start only initiates once more, which changes nothing.
touch /data/db/.records-replicated
