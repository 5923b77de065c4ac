-- As after initdb; only the job had to connect.
ALTER DATABASE template0 ALLOW_CONNECTIONS false;
