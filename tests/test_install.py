"""The profiles and data files are found from a checkout, an editable install and a wheel."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROBE = (
    "import predictor, predictor.profile as p, predictor.stack as s, predictor.world as w, "
    "predictor.machine as m, predictor.kernels.steps as k; "
    "print(p.profiles_dir()); print(len(p.list_profiles())); "
    "p.find_profile('h100'); s.find_stack('eager-2'); w.find_region('france'); k.step_form(); "
    "m.build_machine('aws:p5.48xlarge')"
)


def probe(python, cwd, path=""):
    out = subprocess.run(
        [str(python), "-c", PROBE],
        cwd=cwd,
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    folder, count = out.stdout.split()
    return Path(folder), int(count)


def test_found_from_a_checkout(tmp_path):
    """The package imported from its folder, as in a plain clone."""
    folder, count = probe(sys.executable, tmp_path, path=str(ROOT))
    assert folder == ROOT / "hardware_profiles"
    assert count == len(list((ROOT / "hardware_profiles").glob("[!_]*.toml")))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A clean virtual environment that borrows this one's third-party packages, but not predictor."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    own = subprocess.run(
        [str(python), "-c", "import site; print(site.getsitepackages()[0])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # Dependencies come from here: a .pth file that holds only folders runs no editable hooks of theirs.
    (Path(own) / "borrowed.pth").write_text(str(Path(pytest.__file__).parent.parent) + "\n")
    return python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("sources")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        if name.startswith(("predictor/", "hardware_profiles/")) or "/" not in name:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "dist"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (path,) = (folder / "dist").glob("*.whl")
    return path


def test_found_from_a_wheel(bare, wheel, tmp_path):
    subprocess.run(
        [str(bare), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)],
        check=True,
        capture_output=True,
    )
    try:
        folder, count = probe(bare, tmp_path)
    finally:
        subprocess.run([str(bare), "-m", "pip", "uninstall", "--quiet", "--yes", "predictor"], check=True)
    assert folder.parts[-2:] == ("predictor", "hardware_profiles")
    assert str(ROOT) not in str(folder)
    assert count == len(list((ROOT / "hardware_profiles").glob("[!_]*.toml")))


def test_a_wheel_holds_every_file_of_the_package(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "predictor", "hardware_profiles"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    wanted = {f"predictor/{n}" if n.startswith("hardware_profiles/") else n for n in tracked}
    assert wanted <= inside


def test_found_from_an_editable_install(tmp_path):
    """This environment: `make test` installs the project in editable mode."""
    folder, count = probe(sys.executable, tmp_path)
    assert folder == ROOT / "hardware_profiles"
    assert count > 20
