"""The wheel holds every package and command, and imports run one way."""
from __future__ import annotations

import ast
import errno
import importlib.util
import os
import signal
import subprocess
import sys
import time
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from nnmiss.errors import command

ROOT = Path(__file__).parent.parent
FOLDERS = {"nnmiss": "nnmiss", "trainers": "nnmiss.trainers", "planners": "nnmiss.planners",
           "dataset_conversion": "nnmiss.dataset_conversion"}


def modules():
    """(dotted name, path) of every module of the source tree."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *parts]).removesuffix(".__init__"), path


def test_the_wheel_holds_everything(tmp_path):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("building without isolation needs setuptools in this environment")
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-q", "-w",
                           str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("nnmiss-*.whl"))).namelist())
    expected = {f"{name.replace('.', '/')}{'/__init__' * (path.name == '__init__.py')}.py" for name, path in modules()}
    assert expected - names == set()
    patterns = ("nnmiss/preprocessing/split_presets/*.json", "nnmiss/report/assets/*")
    files = {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}
    assert files and files - names == set()


def test_every_module_can_be_imported_and_says_in_one_sentence_what_it_is():
    for name, path in modules():
        first = path.read_text().splitlines()[0]
        assert first.startswith('"""'), f"{path} opens without a sentence"
        importlib.import_module(name)


def test_every_command_of_setup_is_installed_and_shows_help():
    commands = {e.name: e for e in entry_points(group="console_scripts") if e.name.startswith("nnmiss_")}
    names = ("convert_dataset", "phantom", "plan_and_preprocess", "simulate_missing", "train", "predict", "evaluate",
             "search", "benchmark", "demo", "report", "export_brats", "validate_brats", "import_brats_scores",
             "export_model", "install_model")
    assert set(commands) == {f"nnmiss_{name}" for name in names}
    assert set(names) == {path.stem for path in (ROOT / "nnmiss/cli").glob("*.py")
                          if "\ndef main" in path.read_text() or "\nmain = " in path.read_text()}
    for name in names:
        assert callable(commands[f"nnmiss_{name}"].load())
        assert callable(importlib.import_module(f"nnmiss.cli.{name}").main)


def test_ctrl_c_while_torch_is_imported_leaves_no_traceback():
    code = "import sys; sys.argv = ['nnmiss_predict', '--help']; from nnmiss.cli.start import predict; predict()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    while "torch" not in Path(f"/proc/{process.pid}/maps").read_text() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err


def test_forked_workers_of_a_command_die_of_sigterm():
    """Else nnU-Net's pools hang now and then: a handler in Python can miss the signal, the default cannot."""
    read, write = os.pipe()

    def main():
        child = os.fork()
        if child == 0:
            os.write(write, str(int(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert callable(signal.getsignal(signal.SIGTERM))

    with pytest.raises(SystemExit) as stop:
        command(main)()
    assert stop.value.code == 0 and os.read(read, 1) == b"1"


@pytest.mark.parametrize(("error", "said"), [
    (OSError(errno.ENOSPC, "No space left on device", "/source/image.nii.gz"), "no space left on the disk"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/.x.12-0123abcd.tmp.json"), "(/proc/x.json)"),
])
def test_errors_of_the_system_name_what_the_user_knows(error, said, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        command(main)()
    told = capsys.readouterr().err
    assert stop.value.code == 1 and said in told and "/source" not in told and ".tmp" not in told


def allowed(importer: str, imported: str) -> bool:
    """cli, nnunet_ext -> trainers, planners, dataset_conversion -> nnmiss/* ; never back, never method to method."""
    level = {"cli": 3, "nnunet_ext": 3, "trainers": 2, "planners": 2, "dataset_conversion": 2}
    a, b = (level.get((name.split(".") + ["", ""])[1], 1) for name in (importer, imported))
    return a >= b


def test_imports_run_one_way():
    wrong = []
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("nnmiss"):
                wrong += [f"{name} -> {node.module}"] if not allowed(name, node.module) else []
    assert wrong == []


def test_no_method_imports_another():
    methods = {"metakd", "modality_dropout"}
    for method in methods:
        tree = ast.parse((ROOT / "trainers" / f"{method}.py").read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & (methods - {method})
