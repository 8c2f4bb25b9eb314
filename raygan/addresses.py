"""Addresses of storage, images and MLflow: refused if they hold a secret or name a second one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from raygan.errors import ConfigError
from raygan.shown import shown

_NAME_BEFORE_HOST = frozenset({"abfs", "abfss", "wasb", "wasbs", "hdfs", "viewfs"})
"""Schemes with ``container@account`` or ``user@host``: no secret unless a ``:`` follows."""
_SECRET = re.compile(
    r"secret|token|passw|pwd|credential|signature|^(sig|key|auth)$|"
    r"(access|account|api|shared)[_-]?key",
    re.IGNORECASE,
)
"""Names of options that hold a secret."""
_SECRET_INSIDE = re.compile(r"(secret|token|password|pwd|key)\s*=", re.IGNORECASE)
"""In the value of an option: ``odbc_connect=…;PWD=…``."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
"""One within a text."""
_MOST = 300
"""Characters of another program's message that are shown."""
_PORT = re.compile(r"[^/@:]*:\d+(/|$)")
_ENVIRONMENT = "the environment variables "
_INSTEAD = {
    "s3": "a role of the machine, a credentials file that only you can read, or "
    f"{_ENVIRONMENT}AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    **dict.fromkeys(("gs", "gcs"), f"{_ENVIRONMENT}GOOGLE_APPLICATION_CREDENTIALS"),
    **dict.fromkeys(
        ("abfs", "abfss", "wasb", "wasbs"),
        f"{_ENVIRONMENT}AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    ),
    "postgresql": f"{_ENVIRONMENT}PGUSER and PGPASSWORD",
}
_OF_MLFLOW = f"{_ENVIRONMENT}MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


def is_address(path: str) -> bool:
    """Whether ``path`` is an address such as ``s3://bucket/images``, not a local path."""
    return "://" in path


def bucket_of(address: str) -> tuple[str, str]:
    """The address of ``address``'s bucket or host, with a slash at its end, and the rest of it."""
    scheme, mark, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}{mark}{bucket}/", key


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
    is_server = scheme in ("http", "https") and re.search("tracking|mlflow", name.lower())
    instead = _OF_MLFLOW if is_server else _INSTEAD.get(scheme, "the client's configuration file")
    raise ConfigError(
        f"`{name}` (={shown(without_secrets(address))!r}) holds a user, a password or a key, which "
        f"would stand in reports, files and MLflow: remove it from the address, and use {instead}"
    )


def without_secrets(address: str) -> str:
    """``address`` with its user information and its secret options replaced by ``***``."""
    if not is_address(address):
        return address
    scheme, _, rest = address.partition("://")
    place, mark, options = rest.partition("?")
    # a password may hold a slash; behind a host and its port, an @ is part of the path
    with_user = ":" in place.partition("@")[0] and not _PORT.match(place)
    inside = place if with_user else place.partition("/")[0]
    before, at, host = inside.rpartition("@")
    named = ":" not in before and (scheme.lower() in _NAME_BEFORE_HOST or before == "anonymous")
    if at and not named:
        before = "***"
    safe = f"{scheme}://{before}{at}{host}{place.removeprefix(inside)}"
    if not mark:
        return safe
    given = parse_qsl(options, keep_blank_values=True)
    hidden = [_SECRET.search(key) or _SECRET_INSIDE.search(value) for key, value in given]
    if not any(hidden):
        return safe + mark + options
    kept = (f"{k}=***" if hide else f"{k}={v}" for (k, v), hide in zip(given, hidden, strict=True))
    return safe + mark + "&".join(kept)


def first_line(error: BaseException, hidden: Iterable[str | None] = ()) -> str:
    """What an error of another program says, in short, without the secrets of its addresses.

    ``hidden``: other secrets that it may repeat. An error without a word is named by its type.
    """
    lines = str(error).strip().splitlines()
    text = _ADDRESS.sub(lambda match: without_secrets(match[0]), lines[0] if lines else "")
    for secret in filter(None, hidden):
        text = text.replace(secret, "***")
    return shown(text or type(error).__name__, _MOST)
