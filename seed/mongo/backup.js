// Writes every record to standard output, in the order of _id: each as a line of canonical Extended JSON. An empty line marks the
// end, to detect a backup that was cut between two records.
const fs = require('fs');
const { service, collection } = require('/usr/local/share/records/common.js');

const CHUNK = 1 << 20;

// Without promotion, since JavaScript numbers do not distinguish 5 from 5.0. The backup is not a snapshot: MongoDB keeps those for
// five minutes, and a large backup takes longer.
// A regular expression of PCRE may be none of JavaScript.
const types = { promoteValues: false, promoteLongs: false, promoteBuffers: false, bsonRegExp: true };
const records = connect(service()).getCollection(collection()).find({}, {}, types).sort({ _id: 1 });

let text = '';
function write() {
  const bytes = Buffer.from(text);
  for (let sent = 0; sent < bytes.length; ) {
    try {
      sent += fs.writeSync(1, bytes, sent);
    } catch (error) {
      // The pipe is full because its reader is slow.
      if (error.code !== 'EAGAIN') throw error;
      sleep(10);
    }
  }
  text = '';
}
while (records.hasNext()) {
  const line = EJSON.stringify(records.next(), { relaxed: false });
  if (line.includes('"$numberLong":"NaN"')) {
    throw new Error(`a date is beyond what this backup can hold: use mongodump. ${line.slice(0, 100)}`);
  }
  text += `${line}\n`;
  if (text.length > CHUNK) write();
}
text += '\n';
write();
