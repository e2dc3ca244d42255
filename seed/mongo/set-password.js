const fs = require('fs');

function setting(name, otherwise) {
  const file = process.env[`${name}_FILE`];
  return process.env[name] || (file && fs.readFileSync(file, 'utf8').trim()) || otherwise;
}

const user = encodeURIComponent(setting('MONGO_INITDB_ROOT_USERNAME'));
const password = encodeURIComponent(setting('MONGO_INITDB_ROOT_PASSWORD'));
const admin = connect(`mongodb://${user}:${password}@127.0.0.1:27017/admin?directConnection=true`);
admin
  .getSiblingDB(setting('RECORDS_MONGO_DATABASE', 'records'))
  .changeUserPassword(setting('RECORDS_MONGO_USERNAME'), process.env.RECORDS_MONGO_NEW_PASSWORD);
print('records-mongo: the password is changed');
