"""Builds the C extension in native/ into the program. All else about the package is in pyproject.toml."""

import tempfile
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent

with tempfile.TemporaryDirectory() as build:  # a build folder that stays would install modules that were removed since
    setup(
        ext_modules=[
            Extension(path.stem, [f"native/{path.name}"], extra_compile_args=["-O3"], py_limited_api=True, optional=True)
            for path in sorted(ROOT.glob("native/*.c"))
        ],
        options={"bdist_wheel": {"py_limited_api": "cp311"}, "build": {"build_base": build}, "egg_info": {"egg_base": build}},
    )
