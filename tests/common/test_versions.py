"""Versions for manifests: those that the packages themselves say."""

import platform

import numpy

import r1searcher
from r1searcher.common.versions import installed_version, versions


def test_versions_are_those_of_the_packages() -> None:
    found = versions()
    assert found["r1searcher"] == r1searcher.__version__
    assert found["python"] == platform.python_version()
    assert found["numpy"] == numpy.__version__


def test_packages_that_are_not_installed_are_left_out() -> None:
    assert installed_version("no-such-package-of-r1searcher") is None
    assert all(versions().values())
