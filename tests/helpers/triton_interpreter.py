"""Triton's interpreter does at every call of a kernel what it need do once. The same results, in a quarter of the time.

What is left out is work whose result it throws away or has already: nothing that a kernel computes, and no check.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

from triton.language import core, semantic
from triton.runtime import interpreter

Words = frozenset[str]  # names of the modules whose words are the interpreter's: triton.language, its core
LANGUAGES = (interpreter.tl, interpreter.tl.core)


def speed_up() -> None:
    """Once a process: a second time changes nothing. Nor does it where Triton keeps no scopes of its patches (3.6)."""
    if isinstance(interpreter._patch_lang, _Patch) or not hasattr(interpreter, "_LangPatchScope"):
        return
    builder = interpreter.interpreter_builder
    # Sums and products of integers are made again in 64 bits for an assertion that is made with `debug` alone.
    if not builder.options.debug:
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    interpreter._get_np_dtype = _remembered(interpreter._get_np_dtype)
    core.block_type.__init__ = _remembered_block(core.block_type.__init__)
    core.tensor.__init__ = _made
    semantic.TritonSemantic.broadcast_impl_value = _unless_alike(semantic.TritonSemantic.broadcast_impl_value)
    interpreter._patch_lang = _Patch(interpreter._patch_lang)


def _remembered(numpys_type: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The interpreter builds a table of 18 types to look one up. Types of one name are equal."""
    found: dict[str, Any] = {}

    def look_up(of: Any) -> Any:
        if of.name not in found:
            found[of.name] = numpys_type(of)
        return found[of.name]

    return look_up


def _remembered_block(init: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    """A block's type is of an element and a shape; its parts are the same objects for all that are equal."""
    found: dict[tuple[Any, tuple[int, ...]], dict[str, Any]] = {}

    def look_up(self: Any, element: Any, shape: Any) -> None:
        if isinstance(element, core.pointer_type):  # which has no hash
            return init(self, element, shape)
        sizes = tuple(core._unwrap_if_constexpr(size) for size in shape)
        if (element, sizes) not in found:
            init(self, element, shape)
            found[element, sizes] = self.__dict__.copy()
        self.__dict__.update(found[element, sizes])

    return look_up


_shapes: dict[tuple[int, ...], tuple[Any, Any]] = {}  # a shape and a number of elements in the interpreter's types


def _made(self: Any, handle: Any, type: Any) -> None:
    """tl.tensor's constructor, which wraps a shape's numbers anew for each tensor."""
    sizes = tuple(type.shape) if type.is_block() else ()
    if sizes not in _shapes:
        _shapes[sizes] = core.tuple([core.constexpr(size) for size in sizes]), core.constexpr(math.prod(sizes))
    self.handle, self.type, self.dtype = handle, type, type.scalar
    self.shape, self.numel = _shapes[sizes]


def _unless_alike(broadcast: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Both operands of any sum or product are copied to their common shape, which most have already."""

    def to_common_shape(self: Any, lhs: Any, rhs: Any) -> Any:
        of_blocks = lhs.type.is_block()
        if of_blocks == rhs.type.is_block() and (not of_blocks or list(lhs.type.shape) == list(rhs.type.shape)):
            return lhs, rhs
        return broadcast(self, lhs, rhs)

    return to_common_shape


class _Patch:
    """As long as a kernel runs, triton.language's words are the interpreter's.

    It looks for all of them at each launch, and again at each call of a function by a kernel. Here they are looked for
    once, and a function finds them as its kernel left them.
    """

    def __init__(self, patch: Callable[[FunctionType], Any]) -> None:
        self.patch = patch
        self.changes: dict[tuple[Words, Words], list[tuple[Any, str, Any]]] = {}
        self.seen: dict[int, tuple[dict[str, Any], Words]] = {}
        self.launch: _Launch | None = None

    def words(self, namespace: dict[str, Any]) -> Words:
        """Which modules a function knows, by the namespace of its file."""
        if id(namespace) not in self.seen:
            found = (each.__name__ for each in LANGUAGES if any(value is each for value in namespace.values()))
            self.seen[id(namespace)] = namespace, frozenset(found)
        return self.seen[id(namespace)][1]

    def __call__(self, function: FunctionType) -> Any:
        words = self.words(function.__globals__)
        if self.launch is None:
            self.launch = _Launch(self)
        if not words or not words <= self.launch.words:
            self.launch.learn(function, words)
        return self.launch


class _Launch:
    """What a launch changed in triton.language, until it is restored."""

    def __init__(self, patch: _Patch) -> None:
        self.patch = patch
        self.words: Words = frozenset()
        self.scope = interpreter._LangPatchScope()

    def learn(self, function: FunctionType, words: Words) -> None:
        key = self.words, words
        if key not in self.patch.changes:
            first = self.patch.patch(function)
            self.patch.changes[key] = [(where, name, getattr(where, name)) for where, name, _ in first._changes]
            first.restore()
        for change in self.patch.changes[key]:
            self.scope.set_attr(*change)
        self.words |= words

    def restore(self) -> None:
        self.patch.launch = None
        self.scope.restore()
