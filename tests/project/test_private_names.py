"""Where the package reaches into a library: each private name is listed, is there, and the library is capped."""

import ast
import importlib
import inspect
import re
import tomllib
from importlib.metadata import distribution, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import pages

PLACES = ("divergence_notes", "tools", "coursework", "benchmarks")
SOURCES = sorted(path for place in PLACES for path in (pages.ROOT / place).rglob("*.py"))

BUFFER = "stable_baselines3.common.buffers.ReplayBuffer"
CALLBACK = "stable_baselines3.common.callbacks.BaseCallback"
REACHED = {
    f"{BUFFER}._get_samples": "a study draws transitions with random numbers of its own",
    f"{BUFFER}._normalize_reward": "the monitor puts rewards on the scale on which the network is trained",
    f"{BUFFER}._normalize_obs": "the monitor asks for values at the starts of stored episodes",
    "stable_baselines3.common.base_class.BaseAlgorithm._n_updates": "the monitor counts how often targets were renewed",
    "stable_baselines3.common.base_class.BaseAlgorithm._vec_normalize_env": "PreQN draws batches on the scale of TD3's",
    "stable_baselines3.common.base_class.BaseAlgorithm._update_learning_rate": "PreQN's actor has the rate of TD3's",
    f"{CALLBACK}._init_callback": "the monitor refuses an algorithm that it cannot read",
    f"{CALLBACK}._on_training_start": "the monitor begins a new history",
    f"{CALLBACK}._on_step": "every callback has it",
    f"{CALLBACK}._on_rollout_start": "the monitor measures what a training phase did",
    f"{CALLBACK}._on_rollout_end": "the monitor makes a record before a training phase",
    f"{CALLBACK}._on_training_end": "the monitor measures what the last training phase did",
    "torch.nn.Module._parameters": "a pass gives back what it found",
    "torch.nn.Module._buffers": "a pass gives back what it found",
    "torch.nn.Module._modules": "a pass gives back what it found",
    "torch.nn.Module._forward_hooks": "a layer that someone else watches has no closed form",
    "torch.nn.Module._forward_pre_hooks": "a layer that someone else watches has no closed form",
    "torch.nn.Module._backward_pre_hooks": "a layer whose gradients someone changes is not what its class says",
    "torch.nn.modules.module._has_any_global_hook": "a hook of all modules changes what each of them gives",
    "torch.nn.Parameter._backward_hooks": "a hook changes gradients, and the kernel with them",
    "torch.nn.Parameter._version": "an input that was overwritten is not what the layer saw",
    "torch.nn.modules.dropout._DropoutNd": "a dropout that is training draws random numbers",
    "torch.nn.modules.batchnorm._BatchNorm": "a batch norm that is training lets rows see each other",
    "sphinx.application.Sphinx._warncount": "the build says at its end how many warnings there were",
}
"""What is private to a library, and what we use it for."""
HELD = {"sphinx": "jupyter-book"}
"""A library that we do not ask for ourselves is capped by the one that brings it."""
STANDARD = {"_exit"}  # of os, and documented


def private(name):
    return name.startswith("_") and not name.startswith("__")


def foreign(trees):
    """Return the private names that sources use and none of them defines, and the hooks that a callback defines."""
    own, used, hooks = {path.stem for path in SOURCES}, set(), set()
    counted = {id(node.target) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.AugAssign)}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
            if any("Callback" in ast.unparse(base) for base in getattr(node, "bases", ())):
                methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
                hooks |= {name for name in methods if name.startswith("_on_") or name == "_init_callback"}
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            stored = isinstance(node.ctx, ast.Store) and id(node) not in counted  # what is counted on was there
            (own if stored else used).add(name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            inside = getattr(node, "module", "") or ""
            names = [inside, *(alias.name for alias in node.names)]
            if not any(name.startswith("divergence_notes") for name in names):
                used |= {part for name in names for part in name.split(".")}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            used |= {each.value for each in node.args[1:2] if isinstance(each, ast.Constant)}
    return {name for name in used - own if private(name)} - STANDARD | hooks


def lost(path):
    """Say that a private name is gone, and what that means; None while it is there."""
    owner, _, name = path.rpartition(".")
    module, library = owner, path.partition(".")[0]
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module = module.rpartition(".")[0]
    for part in owner.removeprefix(module).split(".")[1:]:
        found = getattr(found, part)
    made = found() if owner == "torch.nn.Module" else found
    setup = getattr(getattr(found, "__init__", None), "__code__", None)  # what an object is given when it is made
    if hasattr(made, name) or (setup and name in setup.co_names):
        return None
    if inspect.isclass(found) and re.search(rf"self\.{name}\b.* = ", inspect.getsource(found)):
        return None  # of its instances
    return f"{library} {version(library)} has no {path} any more, by which {REACHED[path]}: lower its cap, or mend that"


def test_every_private_name_is_listed():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    assert foreign(trees) == {path.rpartition(".")[2] for path in REACHED}


@pytest.mark.parametrize("path", REACHED)
def test_it_is_there(path):
    assert lost(path) is None, lost(path)


@pytest.mark.parametrize("library", sorted({path.partition(".")[0] for path in REACHED}))
def test_its_library_is_capped(library):
    """In every extra that asks for it: below the next number before the first point."""
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    holder = HELD.get(library, library)
    check_cap(holder, asked)
    if holder != library:
        check_cap(library, distribution(holder).requires)


def check_cap(library, asked):
    """Fail where one of these requirements would let the next major version of a library in."""
    ranges = [
        req.specifier for req in map(Requirement, asked) if canonicalize_name(req.name) == canonicalize_name(library)
    ]
    major = int(version(library).split(".")[0])
    assert ranges
    for each in ranges:
        assert each.contains(version(library)) and not each.contains(f"{major + 1}.0"), f"{library}{each} has no cap"


class TestWhatIsGone:
    """The sentence that a later release will be met with."""

    def test_a_method(self, monkeypatch):
        path = f"{BUFFER}._get_samples"
        module, _, name = BUFFER.rpartition(".")
        monkeypatch.delattr(getattr(importlib.import_module(module), name), "_get_samples")
        base = importlib.import_module(module).BaseBuffer
        monkeypatch.delattr(base, "_get_samples")
        assert lost(path).startswith("stable_baselines3 2.")
        assert f"has no {path} any more, by which a study draws" in lost(path)

    def test_a_class(self, monkeypatch):
        import torch

        monkeypatch.delattr(torch.nn.modules.dropout, "_DropoutNd")
        assert "has no torch.nn.modules.dropout._DropoutNd any more" in lost("torch.nn.modules.dropout._DropoutNd")

    @pytest.mark.parametrize(
        "source",
        [
            "x._secret()",
            "from numpy import _secret",
            "import numpy._secret",
            "from numpy._secret import array",
            "getattr(x, '_secret')",
            "x._secret += 1",
            "class Watch(BaseCallback):\n    def _on_secret(self): pass",
        ],
    )
    def test_another_is_found(self, source):
        assert [name for name in foreign([ast.parse(source)]) if name.endswith("_secret")]
        own = "class A:\n    def f(self):\n        self._x = 1\n        os._exit(self._x)"
        assert not foreign([ast.parse(own)])
