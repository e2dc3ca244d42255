// Functions that the other scripts share.
const fs = require('fs');
const os = require('os');

// Returns $NAME, or the content of the file $NAME_FILE.
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

// JavaScript has only one type of number: it would read 1615.0 as 1615, and store an integer. So numbers get their type in Extended
// JSON before they are parsed. Strings stay as they are; they may be long, so no pattern spans one.
function canonical(text) {
  let quoted = false;
  return text.replace(/\\.|"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g, (token) => {
    if (token === '"') quoted = !quoted;
    if (quoted || !/^[-\d]/.test(token)) return token;
    const fits = (bits) => !/[.eE]/.test(token) && BigInt.asIntN(bits, BigInt(token)) === BigInt(token);
    const kind = fits(32) ? '$numberInt' : fits(64) ? '$numberLong' : '$numberDouble';
    return `{"${kind}":"${token}"}`;
  });
}

module.exports = {
  setting,
  canonical,
  database,
  collection,
  // Connects as the service's user over the network, on which the server does not listen while it loads the seed.
  service: (options = '') => {
    const host = setting('RECORDS_MONGO_HOST', os.hostname());
    return `mongodb://${credentials('RECORDS_MONGO')}@${host}:27017/${database()}?directConnection=true${options}`;
  },
  administrator: () => {
    const host = setting('RECORDS_MONGO_HOST', '127.0.0.1');
    const user = credentials('MONGO_INITDB_ROOT');
    return `mongodb://${user}@${host}:27017/${database()}?authSource=admin&directConnection=true`;
  },
};
