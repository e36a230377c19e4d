-- The Secret counts, also with a volume from before: an uninstalled release left it behind, or the password was changed.
-- No server parameter that somebody has set has the passwords logged.
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
