"""What pyproject.toml cannot say: the C engine is built by build_ext.py, for every Python from 3.11 on."""

from setuptools import setup

setup(
    cffi_modules=["build_ext.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
