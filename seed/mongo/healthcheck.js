const fs = require('fs');
const os = require('os');

function setting(name, otherwise) {
  const file = process.env[`${name}_FILE`];
  return process.env[name] || (file && fs.readFileSync(file, 'utf8').trim()) || otherwise;
}

const name = setting('RECORDS_MONGO_DATABASE', 'records');
const user = encodeURIComponent(setting('RECORDS_MONGO_USERNAME'));
const password = encodeURIComponent(setting('RECORDS_MONGO_PASSWORD'));
const time = 'serverSelectionTimeoutMS=3000&connectTimeoutMS=3000&socketTimeoutMS=3000';
const database = connect(`mongodb://${user}:${password}@${os.hostname()}:27017/${name}?directConnection=true&${time}`);

if (!database.getCollection('seed').findOne({ _id: 'loaded' })) throw new Error('the seed is not loaded');
if (!database.getCollection(setting('RECORDS_COLLECTION', 'records')).findOne()) throw new Error('there are no records');
