from __future__ import annotations

import json.decoder

import pytest

from lamina.errors import LaminaError, MissingExtraError
from lamina.extras import need


def test_a_dependency_that_is_there_is_returned_as_import_would():
    assert need("json.decoder", extra="report") is json.decoder


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.inner"])
def test_a_missing_dependency_names_the_extra_and_how_to_install_it(module):
    with pytest.raises(MissingExtraError, match=r"no_such_package,.*pip install 'lamina\[report\]'") as caught:
        need(module, extra="report")
    assert isinstance(caught.value, LaminaError)
    assert isinstance(caught.value, ImportError)


def test_a_dependency_that_lacks_something_itself_keeps_its_own_error(tmp_path, monkeypatch):
    # Installing the extra again would not help, so the error must not advise it.
    (tmp_path / "half_installed.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught:
        need("half_installed", extra="report")
    assert not isinstance(caught.value, MissingExtraError)
