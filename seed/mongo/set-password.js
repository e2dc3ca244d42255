const { administrator, setting } = require('/usr/local/share/records/common.js');

// RECORDS_MONGO, whose user belongs to the database, or MONGO_INITDB_ROOT, whose user belongs to the server.
const whose = process.env.RECORDS_MONGO_WHOSE;
const database = connect(administrator());
const home = whose === 'RECORDS_MONGO' ? database : database.getSiblingDB('admin');
home.changeUserPassword(setting(`${whose}_USERNAME`), process.env.RECORDS_MONGO_NEW_PASSWORD);
print('records-mongo: the password is changed');
