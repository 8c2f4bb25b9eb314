#!/bin/sh
# Makes the passwords of compose.yaml, at random, in two places beside it that only you can read and
# that git ignores: .env for Docker Compose, client/ for machines that run sweeps. It replaces none.
set -eu
umask 077
cd "$(dirname "$0")"
if [ -e .env ]; then
    echo "$PWD/.env exists: nothing is changed. To make new passwords, remove it and the volumes." >&2
    exit 1
fi

draw() { head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n'; }

login=$(draw)
key=$(draw)
mkdir -p client
printf '[mlflow]\nmlflow_tracking_username = raygan\nmlflow_tracking_password = %s\n' "$login" > client/mlflow
printf '[default]\naws_access_key_id = raygan\naws_secret_access_key = %s\n' "$key" > client/aws
printf 'POSTGRES_PASSWORD=%s\nMLFLOW_ADMIN_PASSWORD=%s\nMLFLOW_FLASK_SECRET_KEY=%s\nOBJECTS_SECRET_KEY=%s\n' \
    "$(draw)" "$login" "$(draw)" "$key" > .env
echo "On each machine that runs sweeps, copy client/mlflow to ~/.mlflow/credentials and client/aws to ~/.aws/credentials."
