from tests.data.conftest import encode, folder, run_python  # noqa: F401 - fixtures
