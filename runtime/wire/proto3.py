"""A reader of the few constructs of proto3 that `open_inference.proto` uses: it takes protoc's place.

So nothing generated lies in git, and no compiler is needed on a device. A test holds it against protoc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2

__all__ = ["ProtoError", "read_proto", "walk"]

Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    name: Field.Type.Value(f"TYPE_{name.upper()}")
    for name in ("double", "float", "int32", "int64", "uint32", "uint64", "bool", "string", "bytes")
}
TOKEN = re.compile(r'"[^"]*"|[A-Za-z_][\w.]*|\d+|[{}()<>=;,]|\S')
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class ProtoError(ValueError):
    """The .proto file holds what this reader does not know."""


class _Tokens:
    """Words of the file, one after the other."""

    def __init__(self, text: str) -> None:
        self._words = TOKEN.findall(COMMENT.sub(" ", text))
        self._at = 0

    def peek(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def take(self, *expected: str) -> str:
        """The next word. With words expected: these, in order."""
        word = ""
        for want in expected or (None,):
            word = self.peek()
            if not word or (want is not None and word != want):
                raise ProtoError(f"word {self._at}: {want or 'a word'!r} expected, {word or 'the end'!r} received")
            self._at += 1
        return word


def read_proto(text: str, name: str) -> Any:
    """A file of messages, oneofs, maps and unary calls as a FileDescriptorProto."""
    file, words = descriptor_pb2.FileDescriptorProto(name=name), _Tokens(text)
    while word := words.peek():
        words.take()
        if word == "syntax":
            words.take("=")
            file.syntax = words.take().strip('"')
            words.take(";")
        elif word == "package":
            file.package = words.take()
            words.take(";")
        elif word == "message":
            _message(words, file.message_type.add(), f".{file.package}")
        elif word == "service":
            _service(words, file.service.add())
        else:
            raise ProtoError(f"{word!r} is not known here")
    _resolve(file)
    return file


def _message(words: _Tokens, message: Any, scope: str) -> None:
    message.name = words.take()
    scope = f"{scope}.{message.name}"
    words.take("{")
    while (word := words.peek()) != "}":
        if word == "message":
            words.take()
            _message(words, message.nested_type.add(), scope)
        elif word == "oneof":
            words.take()
            message.oneof_decl.add(name=words.take())
            words.take("{")
            while words.peek() != "}":
                _field(words, message, scope).oneof_index = len(message.oneof_decl) - 1
            words.take()
        else:
            _field(words, message, scope)
    words.take()


def _field(words: _Tokens, message: Any, scope: str) -> Any:
    field = Field(label=Field.LABEL_OPTIONAL)
    if words.peek() == "repeated":
        words.take()
        field.label = Field.LABEL_REPEATED
    kind = words.take()
    pair = None
    if kind == "map":
        words.take("<")
        pair = (words.take(), words.take(",") and words.take())
        words.take(">")
    field.name = words.take()
    words.take("=")
    field.number = int(words.take())
    words.take(";")
    if pair:
        field.label, kind = Field.LABEL_REPEATED, f"{scope}.{_map_entry(message, field.name, pair)}"
    _set_type(field, kind)
    message.field.append(field)
    return message.field[-1]


def _map_entry(message: Any, name: str, pair: tuple[str, str]) -> str:
    """A map is a repeated message of key and value, named after the field."""
    entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    for number, (title, kind) in enumerate(zip(("key", "value"), pair, strict=True), start=1):
        _set_type(entry.field.add(name=title, number=number, label=Field.LABEL_OPTIONAL), kind)
    return str(entry.name)


def _set_type(field: Any, kind: str) -> None:
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type, field.type_name = Field.TYPE_MESSAGE, kind


def _service(words: _Tokens, service: Any) -> None:
    service.name = words.take()
    words.take("{")
    while words.peek() != "}":
        words.take("rpc")
        method = service.method.add(name=words.take())
        words.take("(")
        method.input_type = words.take()
        words.take(")", "returns", "(")
        method.output_type = words.take()
        words.take(")", ";")
    words.take()


def _resolve(file: Any) -> None:
    """Names of types made absolute: looked up in the message itself, then in the file."""
    known = {title for title, _ in walk(file.message_type, f".{file.package}")}

    def absolute(name: str, scope: str) -> str:
        for candidate in (name, f"{scope}.{name}", f".{file.package}.{name}"):
            if candidate in known:
                return candidate
        raise ProtoError(f"{name!r}, used in {scope}, is not in the file")

    for title, message in walk(file.message_type, f".{file.package}"):
        for field in message.field:
            if field.type == Field.TYPE_MESSAGE:
                field.type_name = absolute(field.type_name, title)
    for service in file.service:
        for method in service.method:
            method.input_type = absolute(method.input_type, "")
            method.output_type = absolute(method.output_type, "")


def walk(messages: Any, scope: str) -> Iterator[tuple[str, Any]]:
    """Every message with its absolute name, the outer before the inner."""
    for message in messages:
        title = f"{scope}.{message.name}"
        yield title, message
        yield from walk(message.nested_type, title)
