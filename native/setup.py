"""What is worth a C compiler: `pip install ./native`. Where there is none, an empty package, and actorsync does without."""

import tempfile

from setuptools import Extension, setup

with tempfile.TemporaryDirectory() as build:  # else one that does not compile is what an earlier build left
    setup(
        name="actorsync-native",
        version="0.1.0",
        python_requires=">=3.11",
        py_modules=[],
        ext_modules=[
            Extension(name, [f"{name}.c"], extra_compile_args=["-O3"], py_limited_api=True, optional=True)
            for name in ("md5_lanes", "sized_listing")
        ],
        options={"bdist_wheel": {"py_limited_api": "cp311"}, "build": {"build_base": build}},
    )
