# ruby-pg with the URL of `env --format url`, or without one with PG*.
require 'pg'

print PG.connect(*ENV['DATABASE_URL']).exec(ARGV[0]).getvalue(0, 0)
