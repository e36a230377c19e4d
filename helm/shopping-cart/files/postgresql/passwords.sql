-- Sets the passwords of the Secret. A volume may have older ones, from a release that was uninstalled or before a change.
-- These settings keep the passwords out of the log, whatever the server parameters are.
SET log_statement = none;
SET log_min_duration_statement = -1;
SET log_min_error_statement = panic;
SET log_duration = off;
\getenv user APP_USER
\getenv password APP_PASSWORD
\getenv superuser POSTGRES_USER
\getenv superuser_password POSTGRES_PASSWORD
ALTER ROLE :"user" PASSWORD :'password';
ALTER ROLE :"superuser" PASSWORD :'superuser_password';
