#!/bin/sh
# Prints the secrets of a new installation, each drawn at random:
#   sh infra/kubernetes/secrets.sh | kubectl create --filename -
# with the word `objects` also those of the object storage that the overlay `kind` brings. They are on
# no disk and in no argument of a process. `kubectl create` refuses to replace those that exist.
set -eu

draw() { head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n'; }

secret() { # its name; its keys and values follow, indented by two
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: raygan}\nstringData:\n' "$1"
}

login=$(draw)
secret ray-token
printf '  auth_token: "%s"\n' "$(draw)$(draw)"
secret postgres
printf '  password: "%s"\n' "$(draw)"
secret mlflow
printf '  admin-password: "%s"\n  flask-secret-key: "%s"\n' "$login" "$(draw)"
secret mlflow-client
printf '  credentials: |\n    [mlflow]\n    mlflow_tracking_username = raygan\n    mlflow_tracking_password = %s\n' "$login"

[ "${1:-}" = objects ] || exit 0
key=$(draw)
secret objects
printf '  s3.json: |\n    {"identities": [{"name": "raygan", "actions": ["Admin", "Read", "Write", "List", "Tagging"],\n      "credentials": [{"accessKey": "raygan", "secretKey": "%s"}]}]}\n' "$key"
secret bucket-keys
printf '  credentials: |\n    [default]\n    aws_access_key_id = raygan\n    aws_secret_access_key = %s\n' "$key"
