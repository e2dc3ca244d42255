const { service, collection } = require('/usr/local/share/records/common.js');

const database = connect(service('&serverSelectionTimeoutMS=3000&connectTimeoutMS=3000&socketTimeoutMS=3000'));

if (!database.hello().isWritablePrimary) throw new Error('the server is not the primary of its replica set');

// The records must be readable. There may be none, since your own database may be empty.
const records = database.getCollection(collection());
records.findOne();

// A view and a time series have no change stream; the service serves them without one.
const [namespace] = database.getCollectionInfos({ name: records.getName() }, { nameOnly: true, authorizedCollections: true });
if (!namespace || namespace.type === 'collection') records.watch([], { maxAwaitTimeMS: 1 }).close();
