const { service, collection } = require('/usr/local/share/records/common.js');

const database = connect(service('serverSelectionTimeoutMS=3000&connectTimeoutMS=3000&socketTimeoutMS=3000'));

if (!database.getCollection('seed').findOne({ _id: 'loaded' })) throw new Error('the seed is not loaded');
if (!database.getCollection(collection()).findOne()) throw new Error('there are no records');
