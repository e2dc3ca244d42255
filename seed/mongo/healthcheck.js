const { service, collection } = require('/usr/local/share/records/common.js');

const database = connect(service('serverSelectionTimeoutMS=3000&connectTimeoutMS=3000&socketTimeoutMS=3000'));

// That it may be read is asked, not what it holds: somebody's own database may be empty.
database.getCollection(collection()).findOne();
