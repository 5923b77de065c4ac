// node-postgres with the URL of `env --format url`.
const { Client } = require('pg')

const client = new Client({ connectionString: process.env.DATABASE_URL })
client
  .connect()
  .then(() => client.query(process.argv[2]))
  .then((result) => process.stdout.write(Object.values(result.rows[0])[0]))
  .finally(() => client.end())
