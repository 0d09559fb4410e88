"""Sandbox: a Jinja environment in which a chat template that came with a checkpoint cannot do harm.

Jinja's own sandbox keeps a template away from Python's insides. This one also bounds what a template may spend: every
turn of a loop and every call is a step, every string or list that is made costs its length, and both come out of a
Budget that belongs to one rendering. What multiplies sizes (*, replace, join, format widths) is priced before it is
done; the methods and filters that exist are listed, not excluded. So a rendering ends, within bounded memory.
It knows nothing of messages, roles or checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinMethodType
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from openwork.text.budget import BUDGET, Budget, bits, pay_fields, pay_join, pay_percent, pay_product, pay_replace
from openwork.text.filters import TEMPLATE_FILTERS, pay_output

_STR = """capitalize casefold count endswith find format index isalnum isalpha isdecimal isdigit islower isnumeric
isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit
rstrip split splitlines startswith strip swapcase title upper"""
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, frozenset(_STR.split())),
    (dict, frozenset(("copy", "get", "items", "keys", "values"))),
    (list, frozenset(("copy",))),
    (tuple, frozenset()),
    (int, frozenset()),
    (float, frozenset(("is_integer",))),
    (bytes, frozenset()),
)
_COMPARING = frozenset(("eq", "equalto", "==", "ne", "!=", "in", "lt", "lessthan", "<", "le", "<="))
_COMPARING |= frozenset(("gt", "greaterthan", ">", "ge", ">="))


class TemplateRefusal(TemplateError):
    """raise_exception(message): the template itself refuses what it was given."""


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """The environment for one checkpoint's templates. Renderings share it; each brings its Budget in its variables."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # nothing is worked out at compile time, where no budget counts
            finalize=pay_output,
            extensions=[_Generation, loopcontrols],
        )
        self.filters = dict(TEMPLATE_FILTERS)
        del self.globals["lipsum"]
        self.globals |= {"dict": _make_dict, "namespace": _Namespace, "raise_exception": _raise_exception}

    def compile_bounded(self, source: str) -> Any:
        """A template whose loops, joins and literal texts are paid for. Raises what Jinja raises."""
        tree = self.parse(source)
        return self.from_string(_Priced().visit(tree))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        return None if formatted is None else _Format(value.__self__, formatted)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        # The double underscores leave every name free for the template's own keyword arguments, as in the base class.
        budget: Budget = __context.parent[BUDGET]
        budget.step()
        if isinstance(__obj, BuiltinMethodType) and isinstance(__obj.__self__, str):
            args = _pay_method(budget, __obj.__self__, __obj.__name__, args)
        elif isinstance(__obj, _Format):
            pay_fields(budget, __obj.text, [*args, kwargs])
        elif isinstance(__obj, LoopContext) and args:
            args = (budget.each(args[0]), *args[1:])
        result = super().call(__context, __obj, *args, **kwargs)
        budget.pay_text(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget: Budget = context.parent[BUDGET]
        if operator == "*":
            pay_product(budget, left, right)
        elif operator == "**" and not (bits(right) <= 6 and bits(left) <= 64):
            raise SecurityError("a power this large is not allowed")
        elif operator == "%" and isinstance(left, str):
            pay_percent(budget, left, right)
        return budget.pay_copy(super().call_binop(context, operator, left, right))


class _Priced(NodeTransformer):
    """Rewrites a parsed template so that what Jinja does without asking the environment goes through a filter.

    Lists pay for all they hold when they are written down: a list of lists of lists that hold one another twice would
    be small in memory and endless to compare or print.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _through("-each", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("-concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("-copy", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _through("-read", node.expr)
        return node

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _through("-read", node.expr)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.name in _COMPARING:
            node.node = _through("-read", node.node)
            node.args = [_through("-read", arg) for arg in node.args]
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("-read", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("-read", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("-read", node) if node.ctx == "load" else node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        return nodes.Const(node.data, lineno=node.lineno)  # written out by finalize, which counts it


def _through(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """{% generation %} marks, for training, what an assistant says. It adds nothing to the text."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class _Format:
    """str.format of one text, with the text in sight, so that a call can be priced."""

    def __init__(self, text: str, formatted: Callable[..., str]) -> None:
        self.text = text
        self._formatted = formatted

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        return self._formatted(*args, **kwargs)


class _Namespace(Namespace):
    """namespace(): no attribute may look like one of Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _check_name(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:  # Jinja's own writes out the content, which nobody has paid for
        return "<namespace>"


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError("an attribute of a namespace must be text that does not start with an underscore")


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise_exception(message: Any) -> None:
    raise TemplateRefusal(message[:1000] if isinstance(message, str) else "no reason given")


def _pay_method(budget: Budget, text: str, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pays for a method of a text; returns its arguments, those that can be read only once made into a list."""
    budget.pay(len(text))
    if name == "replace" and len(args) >= 2:
        pay_replace(budget, text, args[0], args[1])
    elif name == "join" and args:
        args = (list(budget.each(args[0])), *args[1:])
        pay_join(budget, text, args[0])
    return args
