"""Nothing here unpickles, evaluates or runs what a stranger could have written: read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("bearray", "sweeps", "benchmarks")

FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
    "imp",
}
"""They turn bytes into running code."""
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    "torch.load": "safetensors.torch.load_file",
    "torch.hub.load": "a folder of safetensors",
    "torch.jit.load": "a folder of safetensors",
    "np.load": "bearray.array_files.read_arrays",
    "numpy.load": "bearray.array_files.read_arrays",
    "pd.read_pickle": "Parquet",
    "pandas.read_pickle": "Parquet",
    "pd.read_hdf": "Parquet",
    "yaml.load": "yaml.safe_load",
    "yaml.full_load": "yaml.safe_load",
    "yaml.unsafe_load": "yaml.safe_load",
    "os.system": "subprocess.run with a list",
    "os.popen": "subprocess.run with a list",
    "pty.spawn": "subprocess.run with a list",
    "tarfile.open": "reading names one by one, each checked by bearray.runs.inside",
    "zipfile.ZipFile": "reading names one by one, each checked by bearray.runs.inside",
    "shutil.unpack_archive": "reading names one by one, each checked by bearray.runs.inside",
    "tempfile.mktemp": "tempfile.mkstemp",
    "xml.etree.ElementTree.parse": "no XML from strangers",
}
"""Call -> what to use instead."""
FORBIDDEN_ARGUMENTS = {
    "allow_pickle": True, "trust_remote_code": True, "weights_only": False, "use_safetensors": False,
    "shell": True, "safe_serialization": False, "verify": False, "autoescape": False,
}  # fmt: skip
WEIGHTS = ("AutoModelForCausalLM", "AutoModel", "LlamaForCausalLM")


def faults(source: str, name: str = "x.py") -> list[str]:
    """What is forbidden in a module, each as "file:line: what"."""
    found = []
    aliases: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            aliases |= {a.asname: a.name for a in node.names if a.asname}
            found += [
                (node.lineno, f"import {a.name}") for a in node.names if _top(a.name) in FORBIDDEN_MODULES
            ]
        elif isinstance(node, ast.ImportFrom) and node.module:
            aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            if _top(node.module) in FORBIDDEN_MODULES:
                found.append((node.lineno, f"from {node.module} import"))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func)
        head, dot, rest = called.partition(".")
        called = f"{aliases.get(head, head)}{dot}{rest}"
        if called in FORBIDDEN_NAMES:
            found.append((node.lineno, f"{called}()"))
        if called in FORBIDDEN_CALLS:
            found.append((node.lineno, f"{called}(); use {FORBIDDEN_CALLS[called]}"))
        for keyword in node.keywords:
            wrong = FORBIDDEN_ARGUMENTS.get(keyword.arg or "")
            if wrong is not None and isinstance(keyword.value, ast.Constant) and keyword.value.value is wrong:
                found.append((node.lineno, f"{keyword.arg}={wrong}"))
        if called.endswith(".from_pretrained") and any(model in called for model in WEIGHTS):
            given = {k.arg: k.value for k in node.keywords}
            for argument, wanted in (("use_safetensors", True), ("trust_remote_code", False)):
                value = given.get(argument)
                if not (isinstance(value, ast.Constant) and value.value is wanted):
                    found.append((node.lineno, f"{called} without {argument}={wanted}"))
    return [f"{name}:{line}: {what}" for line, what in sorted(found)]


def _top(module: str) -> str:
    return module.partition(".")[0]


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_the_project_calls_none_of_them() -> None:
    files = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
    assert len(files) > 100
    found = [
        f for file in files for f in faults(file.read_text(encoding="utf-8"), str(file.relative_to(ROOT)))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "def f():\n    import dill",
        "eval('1')",
        "exec(text)",
        "import torch\ntorch.load('x')",
        "from torch import load\nload('x')",
        "import torch as t\nt.load('x')",
        "import numpy as np\nnp.load('x')",
        "import yaml\nyaml.load(text)",
        "load(x, allow_pickle=True)",
        "AutoTokenizer.from_pretrained(x, trust_remote_code=True)",
        "AutoModelForCausalLM.from_pretrained(x)",
        "AutoModelForCausalLM.from_pretrained(x, use_safetensors=True)",
        "subprocess.run(x, shell=True)",
        "import tarfile\ntarfile.open(x)",
        "Environment(autoescape=False)",
    ],
)
def test_each_of_them_is_found(source: str) -> None:
    assert faults(source)


def test_what_only_looks_like_them_is_not() -> None:
    assert not faults(
        "model.eval()\nre.compile('x')\nast.literal_eval('1')\nyaml.safe_load('1')\nstate.load('x')"
    )
