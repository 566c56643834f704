"""The run that the tests of `bearray.serving` use, served."""

from tests.serving.conftest import histories, recommender, run_folder  # noqa: F401 - fixtures
