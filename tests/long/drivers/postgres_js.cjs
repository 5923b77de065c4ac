// postgres.js takes host, port, user and database from PG*, and wants the contents of the files.
const { readFileSync } = require('fs')
const postgres = require('postgres')

const { PGSSLROOTCERT, PGSSLCERT, PGSSLKEY } = process.env
const sql = postgres({
  ssl: { ca: readFileSync(PGSSLROOTCERT), cert: readFileSync(PGSSLCERT), key: readFileSync(PGSSLKEY) },
})
sql
  .unsafe(process.argv[2])
  .then((rows) => process.stdout.write(Object.values(rows[0])[0]))
  .finally(() => sql.end())
