#!/bin/bash
# Exit status 0 when the service could read its records, be there any or not: over the network, which the server does not
# listen on while the seed is being loaded, and as the service's user. The file is what entrypoint.sh goes by, too.
set -euo pipefail
[ -e /data/db/.records-loaded ] || { echo 'records-mongo: the seed is not loaded' >&2; exit 1; }
HOME=/tmp exec mongosh --quiet --norc --nodb --file /usr/local/share/records/healthcheck.js
