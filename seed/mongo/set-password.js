const { administrator, setting } = require('/usr/local/share/records/common.js');

connect(administrator()).changeUserPassword(setting('RECORDS_MONGO_USERNAME'), process.env.RECORDS_MONGO_NEW_PASSWORD);
print('records-mongo: the password is changed');
