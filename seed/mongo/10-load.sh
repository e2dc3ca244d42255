#!/bin/bash
# The public image's entrypoint runs this on the first start, while the server listens on localhost only. If it fails, the container
# ends, and its next start loads again: see entrypoint.sh.
set -euo pipefail

# mongosh keeps a log and a history in its home, which is the data directory.
HOME=/tmp mongosh --quiet --norc --host 127.0.0.1 --port 27017 --file /usr/local/share/records/load.js ||
  { echo 'records-mongo: the seed could not be loaded: see above' >&2; exit 1; }

sync -f /data/db
touch /data/db/.records-loaded
rm -f /data/db/.records-loading
