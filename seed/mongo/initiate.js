const fs = require('fs');
const { administrator } = require('/usr/local/share/records/common.js');

// The address by which the member finds itself. It does not depend on the container's name or on DNS. Clients ignore it if their URI
// has `directConnection=true`.
const HOST = 'localhost:27017';

// Error codes of the server.
const ALREADY_INITIALIZED = 23;
const NO_REPLICATION_ENABLED = 76;

const isThere = (process_id) => {
  try {
    return process.kill(process_id, 0);
  } catch (error) {
    return false;
  }
};

// Returns true if the server is a member of a set. The temporary server that loads the seed is not.
function initiated() {
  let connection;
  try {
    connection = connect(`${administrator()}&serverSelectionTimeoutMS=2000`).getMongo();
    connection.getDB('admin').runCommand({ replSetInitiate: { _id: 'records', members: [{ _id: 0, host: HOST }] } });
    return true;
  } catch (error) {
    return error.code === ALREADY_INITIALIZED || error;
  } finally {
    if (connection) connection.close();
  }
}

let told = '';
for (let result; (result = initiated()) !== true; sleep(told ? 2000 : 100)) {
  if (!isThere(Number(process.env.RECORDS_MONGO_SERVER))) throw new Error('the server has ended');
  // The server does not listen yet, or it is the one that loads the seed, perhaps before it has the administrator.
  const isRefused = /Authentication failed/.test(String(result));
  const isLoaded = fs.existsSync('/data/db/.records-loaded');
  const isEarly =
    result.code === NO_REPLICATION_ENABLED || /ECONNREFUSED/.test(String(result)) || (isRefused && !isLoaded);
  const text = String(result.message);
  if (!isEarly && text !== told) print(`records-mongo: the replica set cannot be initiated yet: ${text}`);
  told = isEarly ? '' : text;
}
print('records-mongo: the server is a replica set of one member');
