"""The optional C extension by itself: `pip install ./native`. Without a compiler it is an empty package."""

import tempfile
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent

with tempfile.TemporaryDirectory() as build:  # a build folder that stays would hand out what an earlier build compiled
    setup(
        name="actorsync-native",
        version="0.1.0",
        python_requires=">=3.11",
        py_modules=[],
        ext_modules=[
            Extension(path.stem, [path.name], extra_compile_args=["-O3"], py_limited_api=True, optional=True)
            for path in sorted(HERE.glob("*.c"))
        ],
        options={"bdist_wheel": {"py_limited_api": "cp311"}, "build": {"build_base": build}, "egg_info": {"egg_base": build}},
    )
