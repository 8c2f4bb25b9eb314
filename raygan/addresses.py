"""Addresses of storage, images and MLflow: refused if they hold a secret or name a second one."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from raygan.errors import ConfigError
from raygan.shown import shown

_NAME_BEFORE_HOST = frozenset({"abfs", "abfss", "wasb", "wasbs", "hdfs", "viewfs"})
"""Schemes with ``container@account`` or ``user@host``: no secret unless a ``:`` follows."""
_SECRET = re.compile(
    r"secret|token|passw|credential|signature|^sig$|(access|account|api|shared)_?key", re.IGNORECASE
)
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or better a role of the machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    **dict.fromkeys(
        ("abfs", "abfss", "wasb", "wasbs"),
        "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    ),
    **dict.fromkeys(("http", "https"), "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    "postgresql": "PGUSER and PGPASSWORD",
}


def is_address(path: str) -> bool:
    """Whether ``path`` is an address such as ``s3://bucket/images``, not a local path."""
    return "://" in path


def check_address(address: str, name: str) -> None:
    """Refuse what must not stand in an address; a local path passes.

    ``name`` is the key or variable that holds it. Raises :class:`~raygan.errors.ConfigError`
    for a user or password, for a secret among the options after ``?``, and for ``::``, by
    which fsspec joins several addresses. The message does not repeat the secret.
    """
    if not is_address(address):
        return
    if "::" in address.partition("?")[0].replace("[::", "["):  # [::1] is a host
        raise ConfigError(
            f"`{name}` (={shown(without_secrets(address))!r}) joins several addresses by '::', "
            "which is not supported; give one address"
        )
    if without_secrets(address) == address:
        return
    scheme = address.partition(":")[0].lower().partition("+")[0]
    instead = _VARIABLES.get(scheme, "the storage's own configuration file or variables")
    raise ConfigError(
        f"`{name}` (={shown(without_secrets(address))!r}) holds a user, a password or a key, which "
        "would stand in reports, files and MLflow: remove it from the address, and set "
        f"{instead} in the environment"
    )


def without_secrets(address: str) -> str:
    """``address`` with its user information and its secret options replaced by ``***``."""
    if not is_address(address):
        return address
    scheme, _, rest = address.partition("://")
    place, mark, options = rest.partition("?")
    host, slash, path = place.partition("/")
    before, at, host = host.rpartition("@")
    if at and not (scheme.lower() in _NAME_BEFORE_HOST and ":" not in before):
        before = "***"
    found = f"{scheme}://{before}{at}{host}{slash}{path}"
    if not mark:
        return found
    given = parse_qsl(options, keep_blank_values=True)
    if not any(_SECRET.search(key) for key, _ in given):
        return found + mark + options
    kept = (f"{key}=***" if _SECRET.search(key) else f"{key}={value}" for key, value in given)
    return found + mark + "&".join(kept)
