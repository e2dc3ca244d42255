// Loads the seed, creates the service's user, and writes the marker, in this order. Any error ends mongosh with status 1.
const fs = require('fs');
const common = require('/usr/local/share/records/common.js');

const SEED = '/usr/local/share/records/seed.jsonl';
const BATCH = 1000;

const database = db.getSiblingDB(common.database());
const collection = database.getCollection(common.collection());

// The API looks records up by _id, and lists them in its order: MongoDB's own index of _id is sufficient.
let batch = [];
let documents = 0;
function flush() {
  if (batch.length > 0) collection.insertMany(batch, { ordered: true });
  batch = [];
}
fs.readFileSync(SEED, 'utf8').split('\n').forEach((line, index) => {
  if (line.trim() === '') return;
  try {
    batch.push(EJSON.parse(common.canonical(line), { relaxed: false }));
  } catch (error) {
    throw new Error(`line ${index + 1} of the seed: ${error.message}`);
  }
  documents += 1;
  if (batch.length === BATCH) flush();
});
flush();

const stored = collection.countDocuments({});
if (stored !== documents) throw new Error(`the seed has ${documents} documents, the collection ${stored}`);

database.createUser({
  user: common.setting('RECORDS_MONGO_USERNAME'),
  pwd: common.setting('RECORDS_MONGO_PASSWORD'),
  roles: [{ role: 'read', db: database.getName() }],
});

// The marker is written last and durably: if it exists, the load is complete.
database.getCollection('seed').insertOne(
  { _id: 'loaded', documents, at: new Date() },
  { writeConcern: { w: 1, j: true } },
);
print(`records-mongo: ${documents} documents in ${collection.getFullName()}`);
