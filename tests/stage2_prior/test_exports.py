"""The package's names come on demand."""

import subprocess
import sys

import pytest

import stage2_prior


def test_import_does_not_load_torch() -> None:
    code = "import sys, stage2_prior; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'PixelRNN'"):
        stage2_prior.PixelRNN  # noqa: B018
