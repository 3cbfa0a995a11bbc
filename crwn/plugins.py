"""Plug-ins: methods, networks, benchmarks and base sets from outside this package, added to its registries.

A plug-in is either of two:

- a Python file, which declares what it adds: `METHODS = {"l2": MethodEntry(spec=L2Spec, build=L2)}`, and likewise
  `NETWORKS`, `BENCHMARKS` and `BASE_SETS`. It is one file, and imports no neighbouring files. Its code runs only
  if it is named (`load_file`).
- an installed distribution with entry points in the groups `crwn.methods`, `crwn.networks`, `crwn.benchmarks` and
  `crwn.data`, each of which is such an entry under its name. They are looked up, and one is imported, only if a name is
  not built in (`find`): a user has installed them on purpose.

A sweep may also define a base set, from your own images (`crwn.data.own`): no code, which travels as plug-ins do.

Additions get the same checks as built-ins. A plug-in is a value: when unpickled, it loads itself, and refuses if
it finds different code.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.abc
import importlib.util
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, TypeAlias

from crwn.benchmarks import BENCHMARKS, BenchmarkEntry
from crwn.code import NUM_DIGITS, fingerprint_of_bytes, module_code
from crwn.data import BASE_SETS, BaseSet
from crwn.faults import Fault, FaultError
from crwn.methods import METHODS, MethodEntry
from crwn.methods.networks import is_built_in
from crwn.methods.protocol import NETWORKS
from crwn.registry import Registry
from crwn.spec import READ_STRICTLY, BenchmarkSpec, MethodSpec, canonical_json, check_fields

FILE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\.py")
"""The form of a plug-in file's name."""

MODULE_PREFIX = "crwn_plugin_"
"""A plug-in file is imported under its name with this prefix, so that it shadows no other module."""

MAX_BYTES = 2**20
"""Size limit of a plug-in file, larger than any hand-written source."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,49}")
"""The form of a plug-in's names, which tables, figures and files use."""


class PluginError(FaultError):
    """A plug-in cannot be used; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Kind:
    """One registry to which plug-ins add.

    Attributes:
        registry: the registry.
        declared: the name under which a plug-in file declares its entries.
        group: the group of entry points.
        faults: what is wrong with an entry under a name.
    """

    registry: Registry[Any]
    declared: str
    group: str
    faults: Callable[[str, Any], Iterable[Fault]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlugin:
    """A plug-in file, as it was read.

    Attributes:
        name: its name, without folders.
        source: its bytes.
        place: where it was read, for messages and tracebacks.
    """

    name: str
    source: bytes = field(repr=False)
    place: str = field(compare=False)

    @property
    def version(self) -> str:
        """The SHA-256 of its bytes."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def code(self) -> str | None:
        """The fingerprint of its code, see `crwn.code`."""
        return fingerprint_of_bytes(self.source)

    @property
    def module(self) -> str:
        """The name of the module that it becomes."""
        return MODULE_PREFIX + self.name.removesuffix(".py")

    def load(self) -> None:
        """Run it, unless this process already has, and add what it declares.

        Raises:
            PluginError: it does not import, what it declares is wrong, or another file of this name is loaded.
        """
        known = sys.modules.get(self.module)
        if known is not None:
            loaded = getattr(known.__loader__, "plugin", None)
            if loaded != self:
                raise PluginError(
                    "plugin-differs",
                    f"{self.place}: this process has loaded another {self.name}, with the SHA-256 "
                    f"{getattr(loaded, 'version', 'unknown')}; expected {self.version}",
                )
            return
        module = self._imported()
        try:
            _add(_declared(module), self, self.place)
        except PluginError:
            del sys.modules[self.module]
            raise

    def _imported(self) -> ModuleType:
        spec = importlib.util.spec_from_loader(self.module, _Loader(self), origin=self.place)
        assert spec is not None
        assert spec.loader is not None
        spec.has_location = True  # its `__file__` is its place
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.module] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[self.module]
            raise PluginError(
                "plugin-not-importable", f"{self.place}: does not import: {_of_import(error, self.place)}"
            ) from error
        return module

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (FilePlugin, {item.name: getattr(self, item.name) for item in dataclasses.fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPlugin:
    """An entry point of an installed distribution.

    Attributes:
        name: the distribution's name.
        version: its version.
        code: the fingerprint of the module that the entry point names, with all of its package; None if a source is
            not available.
        group: the entry point's group.
        entry: the entry point's name.
    """

    name: str
    version: str
    code: str | None
    group: str
    entry: str

    def load(self) -> None:
        """Import it, unless this process already has, and add it.

        Raises:
            PluginError: the distribution is missing or is another version, it does not import, or its entry is wrong.
        """
        kind = _BY_GROUP[self.group]
        if self.entry not in kind.registry:
            find(kind.registry, self.entry)
        found = provider(kind.registry, self.entry)
        if found != self:
            said = "it is not installed" if found is None else f"it has {_shown(found)}"
            raise PluginError("plugin-differs", f"{self.entry}: expected {_shown(self)} on this machine too; {said}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (InstalledPlugin, {item.name: getattr(self, item.name) for item in dataclasses.fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinedSet:
    """A base set defined by a sweep: data, no code.

    Attributes:
        base: the set, named by its content.
    """

    base: BaseSet

    @property
    def name(self) -> str:
        """The set's name."""
        return self.base.name

    @property
    def version(self) -> str:
        """The same: it names the content."""
        return self.base.name

    def load(self) -> None:
        """Add it to the base sets, in place of the same set at another path."""
        if self.name in BASE_SETS:
            BASE_SETS.remove([self.name])
        BASE_SETS.add({self.name: self.base}, self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DefinedSet, {"base": self.base})


Plugin: TypeAlias = FilePlugin | InstalledPlugin | DefinedSet


def read_file(path: Path) -> FilePlugin:
    """Read a plug-in file, without running it.

    Raises:
        PluginError: it cannot be read, or has no name that a module can have.
    """
    if not FILE_NAME.fullmatch(path.name):
        raise PluginError("plugin-name-unfit", f"{path}: expected the name of a Python file, such as my_method.py")
    try:
        with path.open("rb") as file:
            source = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PluginError("file-unreadable", f"{path}: expected a readable Python file: {error}") from error
    if len(source) > MAX_BYTES:
        raise PluginError("file-too-large", f"{path}: expected at most {MAX_BYTES:,} bytes, given more")
    return FilePlugin(name=path.name, source=source, place=str(path))


def load_file(path: Path) -> FilePlugin:
    """Read a plug-in file and run it, for the rest of this process; raises like `read_file` and `FilePlugin.load`."""
    plugin = read_file(path)
    plugin.load()
    return plugin


def find(registry: Registry[Any], name: str) -> bool:
    """Whether a registry has a name, after looking among entry points for a name that it lacks.

    Raises:
        PluginError: several distributions declare the name, it does not import, or its entry is wrong.
    """
    if name in registry:
        return True
    kind = next(kind for kind in _KINDS if kind.registry is registry)
    points = {(point.value, point.dist.name if point.dist else ""): point for point in _entry_points(kind, name)}
    if not points:
        return False
    if len(points) > 1:
        found = ", ".join(f"{value} of {distribution}" for value, distribution in points)
        raise PluginError(
            "plugin-ambiguous",
            f"{name}: expected one installed distribution that declares it, found {found}; uninstall one",
        )
    (point,) = points.values()
    place = f"{name} ({point.value})"
    try:
        entry = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError("plugin-not-importable", f"{place}: does not import: {_of_import(error, '')}") from error
    plugin = InstalledPlugin(
        name=point.dist.name if point.dist else point.module,
        version=point.dist.version if point.dist else "",
        code=module_code(point.module),
        group=kind.group,
        entry=name,
    )
    _add({kind: {name: entry}}, plugin, f"{place} of {plugin.name} {plugin.version}")
    return True


def find_network(scale: str) -> bool:
    """Whether a scale is a user's own network; looks among entry points and raises like `find`."""
    return not is_built_in(scale) and _NAME.fullmatch(scale) is not None and find(NETWORKS, scale)


def installed_names(registry: Registry[Any]) -> set[str]:
    """The names that entry points declare for a registry; nothing is imported."""
    kind = next(kind for kind in _KINDS if kind.registry is registry)
    return {point.name for point in _entry_points(kind)}


def provider(registry: Registry[Any], name: str) -> Plugin | None:
    """The plug-in that added a name; None if it is built in."""
    found: Plugin | None = registry.provider(name)
    return found


def added_code(benchmark: str, base: str, scale: str) -> str | None:
    """The fingerprint of the plug-ins that define a benchmark, a base set and a network, by their names.

    Returns:
        None if all are built in, or defined without code, or if this process does not know one of them.
    """
    is_known = scale in NETWORKS or is_built_in(scale) or not _NAME.fullmatch(scale)
    if benchmark not in BENCHMARKS or base not in BASE_SETS or not is_known:
        return None
    found = (provider(BENCHMARKS, benchmark), provider(BASE_SETS, base), provider(NETWORKS, scale))
    coded = (plugin for plugin in found if plugin is not None and not isinstance(plugin, DefinedSet))
    parts = [f"{plugin.name} {plugin.code}" for plugin in coded]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:NUM_DIGITS] if parts else None


def _entry_points(kind: _Kind, name: str | None = None) -> list[metadata.EntryPoint]:
    """The entry points of a group, or those of them with a name."""
    found = _all_entry_points(tuple(sys.path))
    return [point for point in found if point.group == kind.group and name in (None, point.name)]


@functools.lru_cache(maxsize=1)
def _all_entry_points(path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    """Those of all installed distributions, read once: a file may contain thousands of unknown names."""
    del path
    return tuple(point for kind in _KINDS for point in metadata.entry_points(group=kind.group))


def _received(cls: type[Plugin], fields: Mapping[str, Any]) -> Plugin:
    """A plug-in that came from another process, loaded."""
    plugin = cls(**fields)
    plugin.load()
    return plugin


class _Loader(importlib.abc.SourceLoader):
    """Loads a plug-in from the bytes that were read, wherever the file is."""

    def __init__(self, plugin: FilePlugin) -> None:
        self.plugin = plugin

    def get_filename(self, fullname: str) -> str:
        """The file's place."""
        return self.plugin.place

    def get_data(self, path: Any) -> bytes:
        """The file's bytes."""
        if path != self.plugin.place:
            raise OSError(f"{path}: not the plug-in {self.plugin.place}")
        return self.plugin.source


def _of_import(error: BaseException, place: str) -> str:
    """Why something did not import, and where in the file."""
    text = " ".join(str(error).split())
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == place:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    is_named = isinstance(error, SyntaxError)  # its text has the line
    where = f", line {lines[-1]}" if lines and not is_named else ""
    return f"{type(error).__name__}: {text[:500]}{where}"


def _declared(module: ModuleType) -> dict[_Kind, Mapping[str, Any]]:
    """What a plug-in file declares.

    Raises:
        PluginError: nothing, or something other than names with entries.
    """
    found = {kind: getattr(module, kind.declared) for kind in _KINDS if hasattr(module, kind.declared)}
    faults = [
        Fault("plugin-entry-unfit", f"{kind.declared}: expected a dict of names with entries, given {_brief(entries)}")
        for kind, entries in found.items()
        if not isinstance(entries, Mapping) or not all(isinstance(name, str) for name in entries)
    ]
    if not any(found.values()):
        names = ", ".join(kind.declared for kind in _KINDS)
        example = 'METHODS = {"mine": MethodEntry(...)}'
        said = f"expected it to declare what it adds, in {names}, such as {example}"
        faults.append(Fault("plugin-declares-nothing", said))
    if not faults:
        faults = [
            Fault(
                "plugin-spec-elsewhere",
                f"{kind.declared}[{name!r}]: expected a spec that this file defines, given {spec!r}",
            )
            for kind, entries in found.items()
            for name, entry in entries.items()
            if isinstance(spec := getattr(entry, "spec", None), type) and spec.__module__ != module.__name__
        ]
    if faults:
        raise PluginError.of(faults, f"{module.__file__}: {'; '.join(faults)}")
    return found


def _brief(value: object) -> str:
    """A plug-in's value, as Python prints it."""
    return reprlib.repr(value)


def _add(found: Mapping[_Kind, Mapping[str, Any]], plugin: Plugin, place: str) -> None:
    """Add checked entries to the registries: all of them or none.

    Raises:
        PluginError: some are wrong; the message names each fault.
    """
    faults: list[Fault] = []
    added: list[_Kind] = []
    for kind in (kind for kind in _KINDS if kind in found):
        wrong = [
            Fault(fault.codes, f"{kind.registry.what} {name!r}: {fault}")
            for name, entry in found[kind].items()
            for fault in _faults(kind, name, entry)
        ]
        faults += wrong
        if not wrong:
            kind.registry.add(found[kind], plugin)  # a benchmark's default may be a base set of the same plug-in
            added.append(kind)
    if faults:
        for kind in added:
            kind.registry.remove(found[kind])
        raise PluginError.of(faults, f"{place}: {'; '.join(faults)}")


def _faults(kind: _Kind, name: str, entry: Any) -> Iterator[Fault]:
    if not _NAME.fullmatch(name):
        yield Fault(
            "name-unfit",
            "expected a name of at most 50 lower-case letters, digits, '-' and '_', since files are named by it",
        )
    if name in kind.registry:
        known = provider(kind.registry, name)
        whose = "it is built in" if known is None else f"by {_shown(known)}"
        yield Fault("name-taken", f"the name is taken, {whose}; choose another")
    else:
        yield from kind.faults(name, entry)


def _method_faults(name: str, entry: object) -> Iterator[Fault]:
    if not isinstance(entry, MethodEntry):
        yield Fault("plugin-entry-unfit", f"expected MethodEntry(spec=..., build=...), given {_brief(entry)}")
        return
    yield from _spec_faults(name, entry.spec, MethodSpec, "kind, training and blueprint")
    yield from _build_faults(entry, "a class or function of (spec, surroundings)")


def _benchmark_faults(name: str, entry: object) -> Iterator[Fault]:
    if not isinstance(entry, BenchmarkEntry):
        yield Fault("plugin-entry-unfit", f"expected BenchmarkEntry(spec=..., build=...), given {_brief(entry)}")
        return
    yield from _spec_faults(name, entry.spec, BenchmarkSpec, "kind, base, validation, problem and normalisation")
    yield from _build_faults(entry, "a function of (spec, images, seed, device)")


def _network_faults(name: str, entry: object) -> Iterator[Fault]:
    if is_built_in(name):
        yield Fault("name-taken", "the name is that of a built-in scale; choose another")
    if not callable(entry):
        expected = "a function of (image, num_classes) that returns a torch.nn.Module"
        yield Fault("plugin-entry-unfit", f"expected {expected}, given {_brief(entry)}")


def _build_faults(entry: Any, expected: str) -> Iterator[Fault]:
    if not callable(entry.build):
        yield Fault("plugin-entry-unfit", f"build: expected {expected}, given {_brief(entry.build)}")


def _spec_faults(name: str, spec: Any, protocol: type[Any], members: str) -> Iterator[Fault]:
    """Faults of an entry's spec class: it must be a value that JSON can hold and YAML can set."""
    parameters = getattr(spec, "__dataclass_params__", None)
    if not isinstance(spec, type) or parameters is None:
        yield Fault("spec-not-frozen", f"spec: expected a frozen dataclass, given {_brief(spec)}")
        return
    if not (parameters.frozen and parameters.eq):
        yield Fault(
            "spec-not-frozen",
            "spec: expected a frozen dataclass, since a trial is a value whose hash is its identity; given one that "
            "can change. Write @dataclass(frozen=True, slots=True, kw_only=True)",
        )
    if getattr(spec, "__pydantic_config__", None) != READ_STRICTLY:
        yield Fault(
            "spec-not-strict",
            "spec: expected __pydantic_config__ = crwn.spec.READ_STRICTLY, by which a sweep's settings are checked",
        )
    try:
        made = spec()
        if not isinstance(made, protocol):
            yield Fault("spec-incomplete", f"spec: expected {members}, given {spec.__name__}, which lacks one of them")
            return
        if made.kind != name:
            yield Fault("spec-of-other-kind", f'spec: expected kind_field("{name}"), given the kind {made.kind!r}')
        check_fields(made)
        canonical_json(made)
        if parameters.frozen:
            hash(made)
    except Exception as error:  # noqa: BLE001 (its own code may raise anything)
        yield Fault(
            "spec-refused",
            f"spec: expected defaults for all fields, and fields that JSON can hold; {type(error).__name__}: {error}",
        )


def _base_set_faults(name: str, entry: object) -> Iterator[Fault]:
    if not isinstance(entry, BaseSet):
        yield Fault("plugin-entry-unfit", f"expected a BaseSet, given {_brief(entry)}")
    elif entry.name != name:
        yield Fault("plugin-entry-unfit", f"expected name={name!r}, given {entry.name!r}")


def _shown(plugin: Plugin) -> str:
    if isinstance(plugin, FilePlugin):
        return f"the plug-in {plugin.place}"
    if isinstance(plugin, DefinedSet):
        return f"the images {plugin.name}"
    return f"{plugin.name} {plugin.version} with the code {plugin.code}"


_KINDS = (
    _Kind(registry=BASE_SETS, declared="BASE_SETS", group="crwn.data", faults=_base_set_faults),
    _Kind(registry=BENCHMARKS, declared="BENCHMARKS", group="crwn.benchmarks", faults=_benchmark_faults),
    _Kind(registry=NETWORKS, declared="NETWORKS", group="crwn.networks", faults=_network_faults),
    _Kind(registry=METHODS, declared="METHODS", group="crwn.methods", faults=_method_faults),
)
"""The registries, in the order in which entries are checked and added."""
_BY_GROUP: Mapping[str, _Kind] = MappingProxyType({kind.group: kind for kind in _KINDS})
