"""The code that a stage of a task depends on, followed from its imports, and one hash of it.

Nothing is imported and no list is kept by hand. The task's own file is followed name by name, from
the keywords of ``TASK = Task(...)`` that the stage reads; every module below the task's is followed
whole, also through imports inside functions. Docstrings, comments and formatting do not count, so
that a reworded sentence retrains nothing.
"""

import ast
import hashlib
from collections.abc import Collection, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "sixfold"
Definitions = dict[str, list[ast.AST]]  # name -> the module-level statements that bind the name


def code_hash(*modules: str) -> str:
    """Return the SHA-256 of the code of modules and of all that they import of sixfold."""
    return _digest(_without_docs(path) for _, path in sorted(source_files(*modules).items()))


def task_hash(module: str, keywords: Collection[str], *modules: str) -> str:
    """Return the SHA-256 of the code that one stage of a task depends on.

    Args:
        module: Name of the task's module, which holds ``TASK = Task(...)``.
        keywords: Keywords of that call whose values the stage reads.
        modules: Names of further modules: the systems that the stage builds.
    """
    own, imported = _followed(module, frozenset(keywords))
    return _digest([*own, code_hash(*imported, *modules)])


def task_files(module: str, keywords: Collection[str], *modules: str) -> dict[str, Path]:
    """Return the modules, with their files, that `task_hash` hashes besides the task's own."""
    return source_files(*_followed(module, frozenset(keywords))[1], *modules)


def source_files(*modules: str) -> dict[str, Path]:
    """Return modules of sixfold, and all that they import of it, with their files."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or not name.startswith(f"{PACKAGE}.") or not (path := _path(name)):
            continue
        found[name] = path
        waiting += _file_imports(path)
    return found


@cache
def _followed(module: str, keywords: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the task's own code behind some keywords, and the modules which that code imports."""
    path = _path(module)
    if path is None:
        raise ValueError(f"there is no module {module}")
    definitions = _definitions(_tree(path))
    (task,) = definitions.get("TASK", [None])
    call = task.value if isinstance(task, ast.Assign) else None
    if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
        raise ValueError(f"{path}: the task must be written `TASK = Task(keyword=...)`")
    own: list[str] = []
    imported: set[str] = set()
    done: set[str] = set()
    waiting: list[ast.AST] = [k for k in call.keywords if k.arg in keywords]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported.update(_imports(node))
            continue
        own.append(ast.unparse(node))
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - done
        imported.update(_imports(node))
        done |= names
        for name in sorted(names):
            waiting += definitions.get(name, [])
    return sorted(own), sorted(imported)


def _definitions(tree: ast.Module) -> Definitions:
    """Return the module-level statements that bind or change each name."""
    found: Definitions = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:  # one by one, so that a stage follows what it uses alone
                one = ast.ImportFrom(module=node.module, names=[alias], level=node.level)
                found.setdefault(alias.asname or alias.name, []).append(one)
        else:
            for name in _bound(node):
                found.setdefault(name, []).append(node)
    return found


def _bound(node: ast.stmt) -> set[str]:
    """Return the names that a statement binds or may change."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import() | ast.ImportFrom():
            return {(a.asname or a.name).partition(".")[0] for a in node.names}
        case ast.Assign(targets=parts):
            pass
        case ast.AnnAssign(target=part) | ast.AugAssign(target=part):
            parts = [part]
        case ast.Expr():
            parts = [node]
        case _:  # a block: what its statements bind
            inner = [child for child in ast.walk(node) if isinstance(child, ast.stmt)]
            return set().union(*(_bound(child) for child in inner if child is not node))
    return {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}


@cache
def _file_imports(path: Path) -> list[str]:
    return _imports(_tree(path))


def _imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                raise ValueError(f"relative import of {ast.unparse(node)!r}: write the full name")
            names += [_home(node.module, alias.name) for alias in node.names]
    return names


def _home(module: str, name: str) -> str:
    """Return the module that ``from module import name`` takes its name from."""
    if not module.startswith(f"{PACKAGE}.") and module != PACKAGE:
        return module
    if _path(f"{module}.{name}"):
        return f"{module}.{name}"
    path = _path(module)
    if path is None or path.name != "__init__.py":
        return module
    for node in ast.walk(_tree(path)):  # a package's own file hands names on, lazily or not
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module:
                    return _home(node.module, alias.name)
    return module


@cache
def _path(name: str) -> Path | None:
    """Return a module's file, found without importing the module."""
    top, *rest = name.split(".")
    spec = find_spec(top)  # a namespace: several folders
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        place = Path(folder, *rest)
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None


@cache
def _tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _without_docs(path: Path) -> str:
    return ast.unparse(_tree(path))


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
