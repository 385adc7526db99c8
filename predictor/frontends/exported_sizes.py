"""Sizes of an exported program: its symbolic expressions, evaluated without running anything of the file.

PyTorch writes a size as sympy prints it, ``Mul(Integer(32), Symbol('s27', positive=True))`` or, in older
files, ``32*s27``. Only Python's grammar is used to take it apart; the meaning of every part is given here.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from predictor.errors import InputError, UnsupportedError

_LONGEST, _LARGEST = 4_000, 2**63
Number = int | float | Fraction

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_RELATIONS = {
    "StrictGreaterThan": operator.gt,
    "GreaterThan": operator.ge,
    "StrictLessThan": operator.lt,
    "LessThan": operator.le,
    "Equality": operator.eq,
    "Eq": operator.eq,
    "Unequality": operator.ne,
    "Ne": operator.ne,
}


def _divide(a: Number, b: Number) -> Number:
    """Exact for whole numbers, as sympy's rationals are."""
    return Fraction(a) / b if isinstance(a, int | Fraction) and isinstance(b, int | Fraction) else a / b


def _power(a: Number, b: Number) -> Number:
    """A power whose result stays small."""
    if not isinstance(b, int | Fraction) or not -64 <= b <= 64 or not -(2**32) <= a <= 2**32:
        raise OverflowError("power too large")
    value: Number = _divide(1, a ** int(-b)) if b < 0 and int(b) == b else a**b
    return value


# Names that sympy and torch.utils._sympy.functions write.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_RELATIONS,
    "Integer": int,
    "Float": float,
    "Rational": Fraction,
    "Add": lambda *terms: sum(terms),
    "Mul": lambda *factors: math.prod(factors),
    "Pow": _power,
    "PowByNatural": _power,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "IntTrueDiv": _divide,
    "FloatTrueDiv": _divide,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "ModularIndexing": lambda a, divisor, modulus: a // divisor % modulus,
    "Max": max,
    "Min": min,
    "Abs": abs,
    "ToFloat": lambda a: a,
    "TruncToInt": math.trunc,
    "TruncToFloat": math.trunc,
    "FloorToInt": math.floor,
    "floor": math.floor,
    "CeilToInt": math.ceil,
    "ceiling": math.ceil,
    "RoundToInt": round,
    "Where": lambda condition, a, b: a if condition else b,
    "ExprCondPair": lambda value, condition: (value, condition),
    "Piecewise": lambda *pairs: next(value for value, condition in pairs if condition),
    "And": lambda *parts: all(parts),
    "Or": lambda *parts: any(parts),
    "Not": operator.not_,
}
_WORDS = {"true": True, "false": False, "True": True, "False": False}


def evaluate(text: str, symbols: Mapping[str, int]) -> Number:
    """The value of a size expression; InputError where it is none or a symbol has no size.

    >>> evaluate("FloorDiv(Add(Symbol('s0', integer=True), Integer(-1)), Integer(2))", {"s0": 8})
    3
    """
    value = _value(_parsed(text), symbols, text)
    if not isinstance(value, int | float | Fraction) or not -_LARGEST <= value <= _LARGEST:
        raise InputError(f"the size expression '{text[:100]}' gives no usable number")
    return value


def symbols_in(text: str) -> list[str]:
    """Names of the symbols of an expression, in order.

    >>> symbols_in("Mul(Integer(32), Symbol('s27', positive=True))")
    ['s27']
    """
    found = []
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.Call) and _called(node) == "Symbol":
            found.append(_symbol(node, text))
        elif isinstance(node, ast.Name) and node.id not in _FUNCTIONS | _WORDS | {"Symbol": 0}:
            found.append(node.id)
    return list(dict.fromkeys(found))


def whole(text: str, symbols: Mapping[str, int]) -> int:
    """The value of an expression that has to be a whole number."""
    value = evaluate(text, symbols)
    if not math.isfinite(value) or int(value) != value:
        given = ", ".join(f"{name} = {symbols.get(name)}" for name in symbols_in(text))
        raise InputError(f"the size '{text[:100]}' is no whole number ({value}) with {given}; choose others")
    return int(value)


def _parsed(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise InputError(f"a size expression of {len(text)} characters is longer than {_LONGEST}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise InputError(f"'{text[:100]}' is no size expression; export the program again") from None


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _symbol(node: ast.Call, text: str) -> str:
    if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        return node.args[0].value
    raise InputError(f"'{text[:100]}' is no size expression; export the program again")


def _value(node: ast.AST, symbols: Mapping[str, int], text: str) -> Any:
    try:
        return _meaning(node, symbols, text)
    except (ArithmeticError, TypeError, ValueError, StopIteration, RecursionError) as error:
        raise InputError(f"the size expression '{text[:100]}' has no value: {error}") from None


def _meaning(node: ast.AST, symbols: Mapping[str, int], text: str) -> Any:
    """What a part of an expression stands for; every kind of part that is not listed is refused."""

    def of(part: ast.AST) -> Any:
        return _meaning(part, symbols, text)

    value: Any
    match node:
        case ast.Constant(value=int() | float() | bool() as number):
            value = number
        case ast.Name(id=word) if word in _WORDS:
            value = _WORDS[word]
        case ast.Name(id=name):
            value = _size_of(name, symbols)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -of(operand)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            value = _divide(of(left), of(right))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            value = _power(of(left), of(right))
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _OPERATORS:
            value = _OPERATORS[type(kind)](of(left), of(right))
        case ast.Compare(left=left, ops=[kind], comparators=[right]) if type(kind) in _OPERATORS:
            value = _OPERATORS[type(kind)](of(left), of(right))
        case ast.Call() if _called(node) == "Symbol":
            value = _size_of(_symbol(node, text), symbols)
        case ast.Call(args=[ast.Constant(value=str() as digits), *_]) if _called(node) in {
            "Float",
            "Integer",
        }:
            value = float(digits)
        case ast.Call() if _called(node) in _FUNCTIONS:
            value = _FUNCTIONS[_called(node)](*map(of, node.args))
        case _:
            raise InputError(f"'{text[:100]}' has a part that is not arithmetic; export the program again")
    return value


def _size_of(name: str, symbols: Mapping[str, int]) -> int:
    if name in symbols:
        return symbols[name]
    raise UnsupportedError(
        f"a size of the program, '{name}', depends on data; replace it by a fixed size and export again"
    )
