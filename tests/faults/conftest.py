from tests.clusters import reference  # noqa: F401 - fixture
