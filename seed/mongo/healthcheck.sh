#!/bin/bash
# Exit status 0 when the service can read its records and follow their changes: as its user, from the primary, over the network, where
# the server does not listen while the seed is being loaded. entrypoint.sh writes the file.
set -euo pipefail
[ -e /data/db/.records-loaded ] || { echo 'records-mongo: the seed is not loaded' >&2; exit 1; }
HOME=/tmp exec mongosh --quiet --norc --nodb --file /usr/local/share/records/healthcheck.js
