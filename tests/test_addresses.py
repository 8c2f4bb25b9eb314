"""Secrets in addresses are refused, and never repeated."""

from __future__ import annotations

import pytest

from raygan.addresses import check_address, without_secrets
from raygan.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("http://user:hunter2@mlflow.example.org", "configuration file"),
        ("https://hunter2@mlflow.example.org/x", "configuration file"),
        ("s3://AKIA:hunter2@bucket/images", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/images?secret_key=hunter2&region=x", "AWS_SECRET_ACCESS_KEY"),
        ("https://a.example.org/c?access_key=hunter2&sig=hunter2", "configuration file"),
        ("abfs://container:hunter2@account/x", "AZURE_CLIENT_SECRET"),
        ("postgresql+psycopg://u:hunter2@db/mlflow", "PGPASSWORD"),
        ("ftp://u:hunter2@host/x", "configuration file"),
        ("http://user:hunt/er2hunter2@host", "configuration file"),
        ("mysql+pymysql://u:hunter2@db/mlflow", "configuration file"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Du%3BPWD%3Dhunter2", "configuration file"),
        ("https://host/x?api-key=hunter2", "configuration file"),
    ],
)
def test_a_secret_is_refused_and_not_repeated(address: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_address(address, "storage")
    assert "`storage`" in str(error.value)
    assert named in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "AKIA" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "results",
        "/a/b@c:d",
        "s3://bucket/a@b:c",
        "s3://bucket/x?region=eu-west-1&endpoint_override=http://localhost:9000",
        "abfs://container@account.dfs.core.windows.net/x",
        "hdfs://user@namenode/x",
        "http://[::1]:5000",
        "http://localhost:5000/a@b",
        "gs://anonymous@bucket/x",
        "sqlite:////a/b #1/mlflow.db",
        "https://mlflow.example.org",
        "sqlite:////a/b.db",
    ],
)
def test_other_addresses_pass(address: str) -> None:
    check_address(address, "storage")
    assert without_secrets(address) == address


@pytest.mark.parametrize("address", ["simplecache::s3://bucket/x", "zip://a.zip::file:///x"])
def test_joined_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="'::'"):
        check_address(address, "dataset.path")


def test_the_variables_of_mlflow_are_named_for_its_server() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        check_address("https://user:hunter2@mlflow.example.org", "tracking.uri")
