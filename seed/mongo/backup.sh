#!/bin/bash
# Writes all records to standard output, and an empty line last, as `records import` and records-mongo-restore read them.
set -euo pipefail
HOME=/tmp exec mongosh --quiet --norc --nodb --file /usr/local/share/records/backup.js </dev/null
