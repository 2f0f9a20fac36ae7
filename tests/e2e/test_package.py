"""The program as a package: `pip install .` and `pip install -r requirements.txt`, each with and without a C compiler."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from daemon import __version__
from tests.support.fault_server import FaultServer
from tests.support.installing import download_wheels
from tests.support.needs import NO_COMPILER, can_compile, skip_reason
from tests.support.product import ROOT, Product
from tests.support.trees import ActorTree

COMPILERS = [
    pytest.param("yes", marks=pytest.mark.skipif(not can_compile(), reason=NO_COMPILER), id="compiler"),
    pytest.param("no", id="no compiler"),
]


class Pip:
    """The pip of the tests, which installs for `python` and asks no network."""

    def __init__(self, folder: Path, python: str, version: str) -> None:
        self.python = python
        self.wheels = folder / "wheels"
        self.packages = folder / "packages"
        download_wheels(self.wheels, version)
        dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
        self.run(python, "install", "--target", self.packages, *dependencies, cwd=folder, path=os.defpath)

    def run(self, python: str | Path, *args: str | Path, cwd: Path, path: str) -> None:
        """Run pip for that Python; `path`: where it finds a compiler, or none."""
        env = {"PATH": path, "HOME": str(cwd.parent), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_COMPILE": "1", "PIP_QUIET": "1"}
        env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, *args],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert 0 == done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Pip:
    return Pip(tmp_path_factory.mktemp("pip"), sys.executable, f"{sys.version_info.major}.{sys.version_info.minor}")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what git keeps and an install reads."""
    folder = tmp_path / "my clone"
    for name in ("daemon", "native"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


class Venv:
    """A virtual environment that has what the program depends on, and nothing else."""

    def __init__(self, folder: Path, pip: Pip, *, compiler: bool) -> None:
        self.bin = folder / "bin"
        self.pip = pip
        self.path = os.defpath if compiler else str(self.bin)
        subprocess.run([pip.python, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
        (site_packages,) = folder.glob("lib/python*/site-packages")
        (site_packages / "dependencies.pth").write_text(f"{pip.packages}\n")  # to install them each time takes 10 seconds

    def install(self, *what: str, cwd: Path) -> None:
        self.pip.run(self.bin / "python", "install", *what, cwd=cwd, path=self.path)

    def run(self, program: str, *args: str, cwd: Path) -> str:
        """What a program of this environment writes; it must end with 0."""
        return subprocess.run(
            [self.bin / program, *args], cwd=cwd, env={}, stdout=subprocess.PIPE, text=True, check=True
        ).stdout


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}


@pytest.mark.parametrize("compiled", COMPILERS)
def test_installed_command_runs_in_any_directory(
    compiled: str, tmp_path: Path, clone: Path, pip: Pip, fault_server: FaultServer
) -> None:
    venv = Venv(tmp_path / "venv", pip, compiler=compiled == "yes")
    before = files_in(clone)
    venv.install(".", cwd=clone)
    assert before == files_in(clone)
    shutil.rmtree(clone)

    assert f"actorsync {__version__} (md5 batch: {compiled})\n" == venv.run("actorsync", "--version", cwd=Path("/"))
    assert venv.run("actorsync", "--help", cwd=Path("/")).startswith("usage: actorsync ")

    tree = ActorTree(tmp_path / "elsewhere")
    tree.actor("0001_installed", images=2)
    tree.upload_to(fault_server)
    synced = Product(tmp_path, [str(venv.bin / "actorsync")]).run(
        ["--once"], tree.root, env={"PYTHONPATH": None, **fault_server.account.environment}
    )
    assert 0 == synced.returncode, synced.stdout + synced.stderr
    tree.assert_matches()


@pytest.mark.parametrize("compiled", COMPILERS)
def test_requirements_bring_the_extension_to_a_clone(compiled: str, tmp_path: Path, clone: Path, pip: Pip) -> None:
    venv = Venv(tmp_path / "venv", pip, compiler=compiled == "yes")
    venv.install("-r", "requirements.txt", cwd=clone)
    assert f"(md5 batch: {compiled})\n" in venv.run("python", "-m", "daemon", "--version", cwd=clone)


def find_python(version: str) -> str | None:
    """A Python of that version: on the PATH, or installed by pyenv."""
    on_path = shutil.which(f"python{version}")
    if on_path is not None and subprocess.run([on_path, "-c", ""], capture_output=True).returncode == 0:
        return on_path
    return next((str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")), None)


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_package_works_on_each_supported_python(version: str, tmp_path: Path, clone: Path, fault_server: FaultServer) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(skip_reason(f"there is no Python {version}", f"pyenv install {version}"))
    (tmp_path / "pip").mkdir()
    venv = Venv(tmp_path / "venv", Pip(tmp_path / "pip", python, version), compiler=True)
    venv.install(".", cwd=clone)
    tree = ActorTree(tmp_path / "elsewhere")
    tree.actor("0001_installed", images=2)
    tree.upload_to(fault_server)
    environment = {"PYTHONPATH": None, **fault_server.account.environment}
    synced = Product(tmp_path, [str(venv.bin / "actorsync")]).run(["--once"], tree.root, env=environment)
    assert 0 == synced.returncode, synced.stdout + synced.stderr
    tree.assert_matches()
