// What the scripts beside this one share.
const fs = require('fs');
const os = require('os');

// $NAME, or what the file $NAME_FILE holds.
function setting(name, otherwise) {
  const file = process.env[`${name}_FILE`];
  const value = process.env[name] || (file && fs.readFileSync(file, 'utf8').trim()) || otherwise;
  if (!value) throw new Error(`${name} or ${name}_FILE must be set`);
  return value;
}

const database = () => setting('RECORDS_MONGO_DATABASE', 'records');
const collection = () => setting('RECORDS_COLLECTION', 'records');

function credentials(user) {
  return `${encodeURIComponent(setting(`${user}_USERNAME`))}:${encodeURIComponent(setting(`${user}_PASSWORD`))}`;
}

module.exports = {
  setting,
  database,
  collection,
  // By the network's address, which the server does not listen on while the seed is being loaded.
  service: (options) =>
    `mongodb://${credentials('RECORDS_MONGO')}@${os.hostname()}:27017/${database()}?directConnection=true&${options}`,
  administrator: () =>
    `mongodb://${credentials('MONGO_INITDB_ROOT')}@127.0.0.1:27017/${database()}?authSource=admin&directConnection=true`,
};
