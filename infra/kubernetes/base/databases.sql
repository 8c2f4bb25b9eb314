-- the database of MLflow's users, beside that of its runs
CREATE DATABASE mlflow_users OWNER mlflow;
