-- Nobody connects to this one but the job, as after initdb.
ALTER DATABASE template0 ALLOW_CONNECTIONS false;
