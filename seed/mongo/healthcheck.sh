#!/bin/bash
# Exits with 0 if the service can read its records and follow their changes. Connects as the service's user, to the primary, over the
# network, on which the server does not listen while it loads the seed. entrypoint.sh writes the file.
set -euo pipefail
[ -e /data/db/.records-loaded ] || { echo 'records-mongo: the seed is not loaded' >&2; exit 1; }
HOME=/tmp exec mongosh --quiet --norc --nodb --file /usr/local/share/records/healthcheck.js
