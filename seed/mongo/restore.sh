#!/bin/bash
# Replaces all records by those on standard input, a line of Extended JSON each; by none of them if one is bad.
set -euo pipefail
HOME=/tmp exec mongosh --quiet --norc --nodb --file /usr/local/share/records/restore.js 3<&0 </dev/null
