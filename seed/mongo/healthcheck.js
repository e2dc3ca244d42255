const { service, collection } = require('/usr/local/share/records/common.js');

const database = connect(service('&serverSelectionTimeoutMS=3000&connectTimeoutMS=3000&socketTimeoutMS=3000'));

if (!database.hello().isWritablePrimary) throw new Error('the server is not the primary of its replica set');

// The records must be readable, whatever there is: your own database may be empty.
const records = database.getCollection(collection());
records.findOne();

// A view and a time series tell no changes; the service serves them without.
const [namespace] = database.getCollectionInfos({ name: records.getName() }, { nameOnly: true, authorizedCollections: true });
if (!namespace || namespace.type === 'collection') records.watch([], { maxAwaitTimeMS: 1 }).close();
