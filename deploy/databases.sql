-- Three databases of one PostgreSQL server, each with a user of its own that can read and write nothing of the others.
-- PostgreSQL's image runs this once, when its volume is empty. Without Docker, as PostgreSQL's superuser, with the three passwords in the environment:
--   psql --set ON_ERROR_STOP=1 < deploy/databases.sql
\getenv prefect_password PREFECT_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD
\getenv ledger_password LEDGER_DB_PASSWORD

CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE ledger LOGIN PASSWORD :'ledger_password';

CREATE DATABASE prefect OWNER prefect ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE mlflow OWNER mlflow ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE ledger OWNER ledger ENCODING 'UTF8' TEMPLATE template0;

REVOKE CONNECT ON DATABASE prefect, mlflow, ledger FROM PUBLIC;
