-- The service's role. It owns its database only, and is not a superuser.
\getenv user APP_USER
\getenv password APP_PASSWORD
\getenv database POSTGRES_DB
CREATE ROLE :"user" LOGIN PASSWORD :'password';
ALTER DATABASE :"database" OWNER TO :"user";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
ALTER SCHEMA public OWNER TO :"user";
