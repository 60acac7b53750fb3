from dataclasses import replace
from functools import partial

import pytest

from synthgrad.data import fashion_mnist, locate, registry


@pytest.fixture(autouse=True)
def empty_machine(tmp_path_factory, monkeypatch):
    """No test sees what happens to be installed or cached on the machine it runs on."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(locate.platformdirs, "user_cache_path", lambda name: cache / name)
    files = replace(fashion_mnist.FILES, system_folders=())
    source = replace(registry._SOURCES["fashion-mnist"], find=partial(locate.find_files, files))
    monkeypatch.setitem(registry._SOURCES, "fashion-mnist", source)
