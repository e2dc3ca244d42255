// Replaces the collection by the output of `backup.js`, or by your own data: completely, or not at all if anything is wrong.
const fs = require('fs');
const { administrator, canonical, collection } = require('/usr/local/share/records/common.js');

const CHUNK = 1 << 20;
const BATCH = 1000;
const BATCH_TEXT = 1 << 21;
const DAY = 24 * 60 * 60 * 1000;

const database = connect(administrator());
const records = database.getCollection(collection());
// The current collection, unless it was dropped.
const [present] = database.getCollectionInfos({ name: records.getName() });
// A temporary collection, which replaces the current one in one step once it is complete. Each run has its own.
const prefix = `${collection()}.restoring.`;
const restored = database.getCollection(prefix + new ObjectId());
// Runs that were killed have left theirs.
for (const { name } of database.getCollectionInfos({}, { nameOnly: true })) {
  const id = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  const isOld = /^[0-9a-f]{24}$/.test(id) && Date.now() - new ObjectId(id).getTimestamp() > DAY;
  if (isOld) database.getCollection(name).drop();
}
database.createCollection(restored.getName(), present?.options);
for (const { v, key, name, ...options } of present ? records.getIndexes() : []) {
  // An index without a collation must say so, or it would get that of the collection.
  if (name !== '_id_') restored.createIndex(key, { name, collation: { locale: 'simple' }, ...options });
}

let batch = [];
// The characters of the batch, since parsed documents take several times as much memory.
let length = 0;
let documents = 0;
// True once the empty line at the end of a backup was read.
let ended = false;
function flush() {
  // Old records are restored even if a newer validator would refuse them.
  if (batch.length > 0) restored.insertMany(batch, { ordered: true, bypassDocumentValidation: true });
  batch = [];
  length = 0;
}
function put(record) {
  // Otherwise a number, for example, would become a record with a `value`.
  if (Object.prototype.toString.call(record) !== '[object Object]' || record._bsontype) {
    throw new Error(`record ${documents} of the backup is no JSON object`);
  }
  batch.push(record);
  if (batch.length === BATCH || length > BATCH_TEXT) flush();
}
function take(line) {
  if (line.trim() === '') {
    ended = true;
    return;
  }
  documents += 1;
  if (ended) throw new Error(`record ${documents} of the backup comes after its end: restore one backup at a time`);
  let record;
  try {
    record = EJSON.parse(canonical(line), { relaxed: false });
  } catch (error) {
    throw new Error(`record ${documents} of the backup: ${error.message}`);
  }
  length += line.length;
  put(record);
}

function run() {
  // Chunks are bytes, since they may end in the middle of a character.
  let rest = Buffer.alloc(0);
  const chunk = Buffer.alloc(CHUNK);
  // An array instead of lines is parsed as a whole, so that a cut is a syntax error.
  const array = [];
  const begins = (bytes) => documents === 0 && bytes.toString('latin1').trimStart().startsWith('[');
  for (let count; (count = fs.readSync(3, chunk)) > 0; ) {
    let bytes = Buffer.concat([rest, chunk.subarray(0, count)]);
    if (array.length > 0 || begins(bytes)) {
      array.push(bytes);
      rest = Buffer.alloc(0);
      continue;
    }
    for (let end; (end = bytes.indexOf(10)) >= 0; bytes = bytes.subarray(end + 1)) take(bytes.toString('utf8', 0, end));
    rest = Buffer.from(bytes);
  }
  if (array.length > 0) {
    const text = Buffer.concat(array).toString('utf8');
    const listed = EJSON.parse(canonical(text), { relaxed: false });
    for (const record of listed) {
      documents += 1;
      put(record);
    }
    ended = true;
  }
  if (rest.length > 0) throw new Error('the backup ends in the middle of a line');
  if (!ended) {
    throw new Error(
      `the backup's end is missing: after its ${documents} records there is no empty line, as if it had been cut short. ` +
        'If it is known to be whole, add an empty line',
    );
  }
  flush();
}

try {
  run();
} catch (error) {
  try {
    restored.drop();
  } catch {
    // The server may be gone. The first error says more.
  }
  throw error;
}
restored.renameCollection(records.getName(), true);
print(`records-mongo: ${documents} records restored`);
