#!/bin/bash
# Exit status 0 when the service could read its records: over the network, which the server does not listen on while the
# seed is being loaded, and as the service's user.
set -euo pipefail
HOME=/tmp exec mongosh --quiet --norc --nodb --file /usr/local/share/records/healthcheck.js
