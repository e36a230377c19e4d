-- The Secret counts, also with a volume from before: an uninstalled release left it behind, or the password was changed.
\getenv user APP_USER
\getenv password APP_PASSWORD
\getenv superuser POSTGRES_USER
\getenv superuser_password POSTGRES_PASSWORD
ALTER ROLE :"user" PASSWORD :'password';
ALTER ROLE :"superuser" PASSWORD :'superuser_password';
