"""Rules on shape: how long a function or module may be, how many parameters, what must be explained, what names say."""

import ast
import re
from collections.abc import Iterator

from tidy.source import Function, Source, Violation, body_lines

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 500
PARAMETERS_MAX = 5
FREE_PARAMETERS_MAX = 3
PRIVATE_POSITIONAL_MAX = 4
EMPTY_NAMES = re.compile(r"(?i)^_*(utils?|common|commons|helpers?|managers?|misc|stuff)$")
EMPTY_CLASS = re.compile(r"(Util|Utils|Helper|Helpers|Manager|Managers)$")
WHAT_IT_IS_NOT = re.compile(r"(?i)\b(not|no|never|nothing|none|only|neither|without|cannot|nobody)\b|n't\b")


def function_lines(source: Source) -> Iterator[Violation]:
    """A function's body has at most 60 lines."""
    for function in source.functions():
        lines = body_lines(function)
        if lines > FUNCTION_LINES_MAX:
            message = f"{lines} lines, at most {FUNCTION_LINES_MAX}: give its steps names of their own"
            yield source.violation("function_lines", function, subject=function.name, message=message)


def module_lines(source: Source) -> Iterator[Violation]:
    """A module has at most 500 lines."""
    lines = source.text.count("\n")
    if lines > MODULE_LINES_MAX:
        message = f"{lines} lines, at most {MODULE_LINES_MAX}: it holds two ideas, split them"
        yield source.violation("module_lines", 1, subject=source.module, message=message)


def parameters(source: Source) -> Iterator[Violation]:
    """At most 5 parameters; of more than 3, a public function takes by keyword what follows the second.

    A click command's parameters are its flags, which click passes by keyword: they are not counted.
    """
    for function in source.functions():
        if any((source.dotted(mark.func) or "").startswith("click.") for mark in _called_marks(function)):
            continue
        positional, keyword = _parameter_counts(function)
        message = _parameter_fault(function.name, positional, keyword)
        if message:
            yield source.violation("parameters", function, subject=function.name, message=message)


def _called_marks(function: Function) -> list[ast.Call]:
    return [mark for mark in function.decorator_list if isinstance(mark, ast.Call)]


def _parameter_counts(function: Function) -> tuple[int, int]:
    arguments = function.args
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    own = [name for name in positional if name not in {"self", "cls"}]
    return len(own), len(arguments.kwonlyargs)


def _parameter_fault(name: str, positional: int, keyword: int) -> str:
    if positional + keyword > PARAMETERS_MAX:
        return f"{positional + keyword} parameters, at most {PARAMETERS_MAX}: pass a frozen kw_only dataclass"
    private = name.startswith("_") and not name.startswith("__")
    if private and positional > PRIVATE_POSITIONAL_MAX:
        return f"{positional} positional parameters, at most {PRIVATE_POSITIONAL_MAX} in a private function: put a * in"
    if not private and positional > 2 and positional + keyword > FREE_PARAMETERS_MAX:
        return f"{positional + keyword} parameters: put a * after the second"
    return ""


def constants(source: Source) -> Iterator[Violation]:
    """A module-level number in capitals says its source or its why.

    Either in a string below it, or in a comment on its line, or in a comment above it, which also speaks for the
    numbers that follow without a blank line.
    """
    for index, node in enumerate(source.tree.body):
        name = _constant_name(node)
        if name and not _explained(source, index, node):
            message = "say where the number comes from: a comment at or above it, or a string below it"
            yield source.violation("constants", node, subject=name, message=message)


def _constant_name(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, value = node.targets[0], node.value
    elif isinstance(node, ast.AnnAssign) and node.value:
        target, value = node.target, node.value
    else:
        return ""
    is_number = isinstance(target, ast.Name) and target.id.lstrip("_").isupper() and _is_numeric(value)
    return target.id if is_number and isinstance(target, ast.Name) else ""


def _is_numeric(value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return isinstance(value.value, int | float) and not isinstance(value.value, bool)
    if isinstance(value, ast.UnaryOp):
        return _is_numeric(value.operand)
    if isinstance(value, ast.BinOp):
        return _is_numeric(value.left) and _is_numeric(value.right)
    if isinstance(value, ast.Tuple | ast.List | ast.Set):
        return bool(value.elts) and all(_is_numeric(element) for element in value.elts)
    return isinstance(value, ast.Starred) and _is_numeric(value.value)


def _explained(source: Source, index: int, node: ast.stmt) -> bool:
    below = source.tree.body[index + 1 : index + 2]
    if below and isinstance(below[0], ast.Expr) and isinstance(below[0].value, ast.Constant):
        return True
    own_lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    if source.comment_lines & set(own_lines):
        return True
    return _below_a_comment(source, index)


def _below_a_comment(source: Source, index: int) -> bool:
    node = source.tree.body[index]
    if node.lineno - 1 in source.comment_lines:
        return True
    before = source.tree.body[index - 1] if index else node
    adjacent = index > 0 and before.end_lineno == node.lineno - 1 and bool(_constant_name(before))
    return adjacent and _below_a_comment(source, index - 1)


def docstrings(source: Source) -> Iterator[Violation]:
    """Everything public has a docstring, and a module's says also what the module deliberately does not do."""
    text = ast.get_docstring(source.tree) or ""
    if not text:
        yield source.violation("docstrings", 1, subject=source.module, message="open with the module's idea")
    elif not source.path.endswith(("__init__.py", "__main__.py")) and not WHAT_IT_IS_NOT.search(text):
        message = "the module docstring says what it does, but not what it deliberately does not do"
        yield source.violation("docstrings", 1, subject=source.module, message=message)
    for node in _public(source.tree):
        if ast.get_docstring(node) is None:
            yield source.violation(
                "docstrings", node, subject=node.name, message="public: say what it returns or is"
            )


def _public(parent: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    for node in parent.body:
        if (
            isinstance(node, Function | ast.ClassDef)
            and not node.name.startswith("_")
            and not _is_overload(node)
        ):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def _is_overload(node: Function | ast.ClassDef) -> bool:
    return any(
        isinstance(mark, ast.Name) and mark.id in {"overload", "override"} for mark in node.decorator_list
    )


def empty_names(source: Source) -> Iterator[Violation]:
    """No file, folder or class is called utils, common, helpers, manager."""
    for part in source.path.removesuffix(".py").split("/"):
        if EMPTY_NAMES.match(part):
            message = "says nothing of what is in it: name the idea, or move each part to the room it serves"
            yield source.violation("empty_names", 1, subject=part, message=message)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and EMPTY_CLASS.search(node.name):
            yield source.violation(
                "empty_names", node, subject=node.name, message="name what it is, not that it helps"
            )


ON_PACKAGE = (function_lines, module_lines, parameters, constants, docstrings, empty_names)
ON_TESTS = (function_lines, module_lines, empty_names)
