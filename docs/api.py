"""Writes the API reference: `{{ api causalvae.metrics }}` in a page becomes an entry for every name of its `__all__`.

mkdocs calls `on_page_markdown`; the tests call the rest, which needs neither mkdocs nor an import of the library.
"""

import ast
import functools
import html
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^\{\{ api ([\w.]+) \}\}$", flags=re.MULTILINE)


class Entry(NamedTuple):
    """A public name, and where the source defines it."""

    name: str
    home: str  # the module that defines it, or that it is
    node: ast.stmt | ast.Module
    docstring: str

    @property
    def path(self) -> str:
        return self.home if isinstance(self.node, ast.Module) else f"{self.home}.{self.name}"

    @property
    def purpose(self) -> str:
        """The docstring's first paragraph, on one line."""
        return " ".join(self.docstring.split("\n\n")[0].split())


# --- what the source says --------------------------------------------------------------------------------


def public_modules() -> list[str]:
    """The library itself, the modules that its `__all__` names, and those that theirs name."""
    found = ["causalvae"]
    for module in found:  # which grows
        found += [entry.path for entry in entries(module) if isinstance(entry.node, ast.Module)]
    return found


def page_of(module: str) -> str:
    """Where a public module's entries stand, in docs/."""
    return f"reference/{module.removeprefix('causalvae.')}.md" if module != "causalvae" else "reference/index.md"


@functools.cache
def entries(module: str) -> list[Entry]:
    """The entries of a module's `__all__`, in its order."""
    return [find(module, name) for name in names(module)]


def names(module: str) -> list[str]:
    """What a module's `__all__` lists."""
    for statement in statements(module):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return ast.literal_eval(statement.value)
    raise ValueError(f"{module} is public, and has no __all__")


def find(module: str, name: str) -> Entry:
    """The entry of `name` as `module` has it: defined there, imported from elsewhere, or a module inside it."""
    body = list(statements(module))
    for number, statement in enumerate(body):
        if name in defined(statement):
            return Entry(name, module, statement, docstring(statement, body[number + 1 :]))
    for statement in body:
        if isinstance(statement, ast.ImportFrom) and statement.module not in (None, module):
            for alias in statement.names:
                if name == (alias.asname or alias.name):
                    return find(statement.module, alias.name)
    inner = f"{module}.{name}"
    if source(inner).is_file():
        return Entry(name, inner, parsed(inner), ast.get_docstring(parsed(inner)) or "")
    raise ValueError(f"{module} names {name!r} in __all__ and does not define it")


def defined(statement: ast.stmt) -> list[str]:
    """The names that one statement defines, imports aside."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def docstring(statement: ast.stmt, following: list[ast.stmt]) -> str:
    """Of a function or class its own; of a variable the string that stands below it."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return ast.get_docstring(statement) or ""
    below = following[0].value if following and isinstance(following[0], ast.Expr) else None
    return below.value if isinstance(below, ast.Constant) and isinstance(below.value, str) else ""


def statements(module: str) -> Iterator[ast.stmt]:
    """A module's statements, those under `if TYPE_CHECKING:` among them."""
    for statement in parsed(module).body:
        yield from statement.body if isinstance(statement, ast.If) else [statement]


@functools.cache
def parsed(module: str) -> ast.Module:
    return ast.parse(source(module).read_text())


def source(module: str) -> pathlib.Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


# --- pages -----------------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, **_) -> str:
    """Called by mkdocs for every page."""
    return MARKER.sub(lambda found: reference(found[1]), markdown)


def reference(module: str) -> str:
    """A table of a module's names, and below it the entry of each."""
    listed = entries(module)
    rows = [f"| {_link(entry)} | {entry.purpose.replace('|', chr(92) + '|')} |" for entry in listed]
    table = "\n".join(["| name | |", "| --- | --- |", *rows])
    return "\n\n".join([table, *(_entry(entry) for entry in listed if page_module(entry) == module)])


def page_module(entry: Entry) -> str:
    """The module on whose page the entry stands: of those that list it, the one nearest to its definition."""
    listing = [module for module in public_modules() if entry.path in {other.path for other in entries(module)}]
    if isinstance(entry.node, ast.Module):
        return entry.home
    return max(listing, key=lambda module: len(os.path.commonprefix([f"{module}.", f"{entry.home}."])))


def _link(entry: Entry) -> str:
    if isinstance(entry.node, ast.Module):
        return f"[`{entry.name}`]({pathlib.Path(page_of(entry.home)).name})"
    return f"[`{entry.name}`][{entry.path}]"


def _entry(entry: Entry) -> str:
    """What mkdocstrings makes of the docstring; of a class also its fields, with what stands beside them."""
    block = f"::: {entry.path}\n    options:\n      show_root_heading: true"
    if not isinstance(entry.node, ast.ClassDef):
        return block
    methods = [n.name for n in entry.node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    rows = [_field(n, entry.home) for n in entry.node.body if isinstance(n, ast.AnnAssign)]
    table = "\n".join(["| field | type | |", "| --- | --- | --- |", *rows]) if rows else ""
    return f"{block}\n      members: {methods}\n\n{table}"


def _field(node: ast.AnnAssign, home: str) -> str:
    """A row: the field's name, type, and the comment beside it, where shapes and units stand."""
    line = source(home).read_text().splitlines()[node.lineno - 1]
    comment = html.escape(line.partition("  # ")[2], quote=False).replace("|", "\\|")
    return f"| `{ast.unparse(node.target)}` | `{ast.unparse(node.annotation)}` | {comment} |"
