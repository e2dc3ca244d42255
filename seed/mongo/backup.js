// Writes every record to standard output, in the order of _id: a line of canonical Extended JSON each, and an empty line at
// the end, without which a backup that was cut between two records would pass for a whole one.
const fs = require('fs');
const { administrator, collection } = require('/usr/local/share/records/common.js');

const CHUNK = 1 << 20;

// As they are: a JavaScript number would not tell 5 from 5.0. One point in time, whatever is written meanwhile, is not
// promised: a server alone has no such reads.
const types = { promoteValues: false, promoteLongs: false, promoteBuffers: false };
const records = connect(administrator()).getCollection(collection()).find({}, {}, types).sort({ _id: 1 });

let text = '';
function write() {
  const bytes = Buffer.from(text);
  for (let sent = 0; sent < bytes.length; ) {
    try {
      sent += fs.writeSync(1, bytes, sent);
    } catch (error) {
      // A pipe that is full, whose reader is slow.
      if (error.code !== 'EAGAIN') throw error;
      sleep(10);
    }
  }
  text = '';
}
while (records.hasNext()) {
  text += `${EJSON.stringify(records.next(), { relaxed: false })}\n`;
  if (text.length > CHUNK) write();
}
text += '\n';
write();
