"""Imports point one way: which room may know which."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"ionn_client", "ionn_edge", "layergraph", "pairing", "planner", "wire"}
ALLOWED = {
    "wire": {"msgpack", "numpy", "zstandard", "PIL"},
    "planner": {"numpy", "scipy"},
    "layergraph": {"torch", "safetensors", "sklearn", "PIL", "numpy",
                   "torchvision", "timm", "transformers"},
    "pairing": {"cryptography", "spake2", "msgpack"},
    "ionn_client": {"pairing", "wire", "layergraph", "planner", "torch", "numpy", "aiohttp",
                    "uvloop", "typer", "rich", "matplotlib", "msgpack", "zeroconf"},
    "ionn_edge": {"pairing", "wire", "layergraph", "planner", "torch", "numpy", "aiohttp", "uvloop",
                  "typer", "msgpack", "segno", "zeroconf", "landlockpy"},
}  # fmt: skip
WITHOUT = {
    "wire": {"asyncio", "socket", "time"},
    "planner": {"asyncio", "socket", "time"},
    "layergraph": {"asyncio", "socket"},
    "pairing": {"asyncio", "socket"},
}
MACHINES = ("ionn_client/machine", "ionn_edge/machine")
SANS_IO = (
    *(str(path.relative_to(ROOT)) for name in MACHINES for path in (ROOT / name).glob("*.py")),
    "pairing/exchange.py", "pairing/frames.py", "pairing/uri.py", "pairing/tokens.py",
)  # fmt: skip


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        tops = {name.partition(".")[0] for name in imported(path)}
        foreign = {
            name for name in tops - {room} if name in ROOMS or name not in sys.stdlib_module_names
        }
        assert foreign <= ALLOWED[room], f"{path} imports {foreign - ALLOWED[room]}"
        assert not tops & WITHOUT.get(room, set()), f"{path} imports {tops & WITHOUT[room]}"


def test_the_edge_knows_only_the_planners_predictor() -> None:
    for path in (ROOT / "ionn_edge").rglob("*.py"):
        planner = {name for name in imported(path) if name.startswith("planner")}
        assert planner <= {
            "planner.predictor",
            "planner.work",
            "planner.roofline",
            "planner.accuracy",
        }, path


def test_solvers_are_loaded_when_they_are_first_used() -> None:
    # Edges and clients start with the planner; scipy's solvers would take most of a second of that.
    program = "import planner, sys; print({'scipy.optimize', 'scipy.sparse'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr


@pytest.mark.parametrize("name", SANS_IO)
def test_state_machines_do_no_io(name: str) -> None:
    tops = {module.partition(".")[0] for module in imported(ROOT / name)}
    assert not tops & {"asyncio", "socket", "time", "threading", "aiohttp", "subprocess", "os"}


@pytest.mark.parametrize("machine", MACHINES)
def test_state_machines_know_nothing_of_what_performs_for_them(machine: str) -> None:
    side = machine.partition("/")[0]
    pure = ("machine", "config", "errors", "activations", "stay", "quantities")
    known = {f"{side}.{name}" for name in pure}
    for path in (ROOT / machine).glob("*.py"):
        own = {name for name in imported(path) if name.partition(".")[0] == side}
        assert all(any(name == k or name.startswith(k + ".") for k in known) for name in own), path


def test_every_branch_of_state_machines_is_counted() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    counted = project["tool"]["coverage"]["run"]["include"]
    found = {name: {str(path.relative_to(ROOT)) for path in ROOT.glob(name)} for name in counted}
    assert all(found.values()), "a file that is not there counts as full"
    assert set(SANS_IO) <= set.union(*found.values())
