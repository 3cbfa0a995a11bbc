"""A user's own networks: any `torch.nn.Module`, for the methods that train a plain network.

A factory builds it from the shape of an image and the number of classes. A plug-in declares the factory under a name,
which is used in place of a scale. The module is computed as a function (`torch.func.functional_call`) of the trial's
state and holds no state itself: its parameters go in, and the new values of its buffers, such as running
statistics, come back. Parameters that require a gradient are trained; the others and all buffers are the state's moving
tensors. Its random draws, initial values and dropout, come from streams of the trial's seed.

Shapes: G lanes, B examples per lane, m classes; C channels, H height, W width; I inputs of the head.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crwn import seeding
from crwn.faults import Codes, Fault
from crwn.lazy import LazyModule
from crwn.methods.networks import MAX_COPIED, Passed
from crwn.methods.protocol import NETWORKS, NetworkFactory, ScaleError, Surroundings, Tensors
from crwn.spec import ProblemShape

if TYPE_CHECKING:
    import torch
    from torch import func
    from torch.nn import attention, functional
    from torch.utils.hooks import RemovableHandle

    from crwn import tensorfile
    from crwn.nn import kernels
else:
    torch = LazyModule("torch")
    func = LazyModule("torch.func")
    attention = LazyModule("torch.nn.attention")
    functional = LazyModule("torch.nn.functional")
    kernels = LazyModule("crwn.nn.kernels")
    tensorfile = LazyModule("crwn.tensorfile")

PREFIX = "network."
"""Prefix of a module's tensors in a state, so that no name clashes with a method's memory."""

EXAMINED_IMAGES = 2
"""Number of images with which a network is examined: batch normalisation cannot learn from one."""


class NetworkError(ScaleError):
    """A user's own network that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A network's sizes, found by building it and running it on a few images.

    Attributes:
        num_parameters: numbers in its parameters.
        num_trained: those that are trained.
        num_stored: numbers in its parameters and buffers.
        multiply_adds: multiply-adds of a training step per example: of linear layers, convolutions and the projections
            of attention. An estimate.
        activations: numbers held per example during a training step.
        head: the name of the `nn.Linear` whose output is the class scores; None if there is none.
    """

    num_parameters: int
    num_trained: int
    num_stored: int
    multiply_adds: int
    activations: int
    head: str | None


def examined(name: str, problem: ProblemShape) -> Examined:
    """The sizes of the network of this name for a problem; each process examines it once.

    Raises:
        NetworkError: it cannot be used; the message names all faults.
    """
    return _examined(NETWORKS[name], name, problem.input_shape, problem.num_classes)


@functools.lru_cache(maxsize=256)
def _examined(factory: NetworkFactory, name: str, image: tuple[int, int, int], num_classes: int) -> Examined:
    place = f"network {name!r} for images {list(image)} and {num_classes} classes"

    def fault(code: Codes, message: str) -> NetworkError:
        return NetworkError(code, f"{place}: {message}")

    try:
        module = _built(factory, image, num_classes, seed=0)
    except Exception as error:
        raise fault("network-not-built", f"expected a torch.nn.Module, the factory raised {_brief(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise fault("network-not-built", f"expected a torch.nn.Module, the factory returned {type(module).__name__}")
    if faults := list(_tensor_faults(module)):
        raise NetworkError.of(faults, f"{place}: {'; '.join(faults)}")
    again = _built(factory, image, num_classes, seed=0)
    if differing := _differing(_tensors(module), _tensors(again)):
        raise fault(
            "network-not-repeatable",
            f"expected equal tensors whenever it is built from one seed, given others in {differing}; draw them with "
            "torch, without a generator or a seed of your own, which crwn replaces by the trial's",
        )
    del again
    with seeding.forked(torch.device("cpu"), 0, "network", "examined"):
        images_BCHW = torch.randn(EXAMINED_IMAGES, *image)
        try:
            found = _measured(module.train(), images_BCHW, num_classes)
            with torch.no_grad():
                scores, scores_again = (module.train(False)(images_BCHW) for _ in range(2))
        except ScoresError as error:
            raise fault("network-scores-unfit", str(error)) from error
        except Exception as error:
            said = f"expected class scores of images {list(images_BCHW.shape)}, the network raised {_brief(error)}"
            raise fault("network-fails", said) from error
    if not torch.equal(scores, scores_again):
        raise fault(
            "network-random-in-tests",
            "expected equal scores of equal images in evaluation mode, given others; what is drawn there, such as by "
            "functional.dropout(x), has to depend on self.training",
        )
    return found


class ScoresError(ValueError):
    """A network's output is not class scores."""


def _measured(module: torch.nn.Module, images_BCHW: torch.Tensor, num_classes: int) -> Examined:
    """A module's sizes, from one forward pass in training."""
    saved: dict[int, int] = {}
    outputs: dict[str, torch.Tensor] = {}
    products = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def note(name: str, layer: torch.nn.Module, output: Any) -> None:
        nonlocal products
        result = output[0] if isinstance(output, tuple) else output
        channels = result.shape[1 if isinstance(layer, convolutions) else -1]
        matrices = sum(parameter.numel() for parameter in layer.parameters() if parameter.ndim > 1)
        products += matrices * result.numel() // channels
        if isinstance(layer, torch.nn.Linear):
            outputs[name] = result

    convolutions = torch.nn.modules.conv._ConvNd
    counted = (torch.nn.Linear, convolutions, torch.nn.MultiheadAttention)
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, counted)}
    with (
        _hooked(
            layer.register_forward_hook(lambda layer, _, output, name=name: note(name, layer, output))
            for name, layer in layers.items()
        ),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        scores = module(images_BCHW)
    expected = (len(images_BCHW), num_classes)
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != expected or not scores.is_floating_point():
        given = f"{scores.dtype} {list(scores.shape)}" if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ScoresError(f"expected class scores {list(expected)} of images {list(images_BCHW.shape)}, given {given}")
    parameters, tensors = dict(module.named_parameters()), _tensors(module)
    held = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    num_bytes = sum(size for place, size in saved.items() if place not in held)
    heads = [name for name, output in outputs.items() if output is scores and f"{name}.weight" in parameters]
    return Examined(
        num_parameters=sum(tensor.numel() for tensor in parameters.values()),
        num_trained=sum(tensor.numel() for tensor in parameters.values() if tensor.requires_grad),
        num_stored=sum(tensor.numel() for tensor in tensors.values()),
        multiply_adds=3 * products // len(images_BCHW),  # forward, and both gradients
        activations=-(-num_bytes // (scores.element_size() * len(images_BCHW))),
        head=heads[-1] if heads else None,
    )


def _tensor_faults(module: torch.nn.Module) -> Iterator[Fault]:
    """What is wrong with a module's tensors."""
    lazy = [name for name, tensor in _tensors(module).items() if torch.nn.parameter.is_lazy(tensor)]
    if lazy:
        yield Fault("network-is-lazy", f"expected parameters with a shape, given lazy ones: {_some(lazy)}")
        return
    wrong = [f"{name} ({t.dtype})" for name, t in module.named_parameters() if not t.is_floating_point()]
    if wrong:
        yield Fault("network-not-float", f"expected parameters of floating-point numbers, given {_some(wrong)}")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        yield Fault("network-trains-nothing", "expected parameters that require a gradient, given none")
    for dtype in {tensor.dtype for tensor in module.buffers()}:
        try:
            tensorfile.dump({"buffer": torch.empty(0, dtype=dtype)}, {})
        except Exception as error:  # noqa: BLE001 (whatever the library raises)
            yield Fault("network-not-stored", f"expected buffers that safetensors can hold, given {dtype}: {error}")


def _tensors(module: torch.nn.Module) -> Tensors:
    """A module's parameters and buffers by name, shared ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _differing(first: Tensors, second: Tensors) -> str:
    """The names under which two modules have different tensors, as text; empty if there are none."""
    names = [*first, *(second.keys() - first.keys())]
    return _some([n for n in names if n not in first or n not in second or not torch.equal(first[n], second[n])])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _brief(error: Exception) -> str:
    """An error in a line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{f': {lines[0][:300]}' if lines else ''}"


def _built(factory: NetworkFactory, image: tuple[int, int, int], num_classes: int, *, seed: int) -> torch.nn.Module:
    """A network with the initial values of a seed, on the CPU, so that they are the same for all devices."""
    with seeding.forked(torch.device("cpu"), seed, "network", "start"):
        return factory(image, num_classes)


@contextmanager
def _hooked(handles: Iterator[RemovableHandle]) -> Iterator[None]:
    """A block in which hooks are set."""
    known = list(handles)
    try:
        yield
    finally:
        for handle in known:
            handle.remove()


@contextmanager
def _in_single_operations() -> Iterator[None]:
    """A block in which attention uses differentiable operations that support vmap.

    Else torch takes fused ones, in evaluation mode for a whole layer. Other operations that do not exist for many
    examples at once are computed for one after another, of which torch warns.
    """
    was_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with attention.sdpa_kernel(attention.SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fused)


class ModuleNetwork:
    """A user's own network, with the interface of `crwn.methods.plain.PlainNetwork`.

    Args:
        surroundings: what the method is built from.

    Attributes:
        by_hand: False: autograd computes all gradients.
    """

    by_hand = False

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._examined = examined(surroundings.scale, surroundings.problem)
        self._module = self._start().to("meta")  # computes with the state's tensors only
        self._names = list(_tensors(self._module))
        self._buffers = list(dict(self._module.named_buffers()))
        self._trained = {name for name, tensor in self._module.named_parameters() if tensor.requires_grad}

    def start(self) -> Tensors:
        """The initial state: parameters and buffers by name, numbers in the trial's dtype."""
        device, dtype = self._surroundings.device, self._surroundings.dtype
        state: Tensors = {}
        for name, tensor in _tensors(self._start()).items():
            kept = tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype)
            kept = kept.clone(memory_format=torch.contiguous_format)
            state[f"{PREFIX}{name}"] = kept.requires_grad_(tensor.requires_grad)
        return state

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """Class scores [G, B, m] of bytes [G, B, ...], all lanes as one batch; see `Method.logits`."""
        pixels_XCHW = self._pixels(images)
        given = self._given(state)
        scores_Xm = self._computed(given, pixels_XCHW, training=training)
        if training and moved is not None:
            moved |= {f"{PREFIX}{name}": given[name].detach() for name in self._buffers}
        return scores_Xm.view(*images.shape[:2], -1)

    def passed(self, state: Tensors, batches: Sequence[torch.Tensor], moved: Tensors) -> Passed:
        """The forward pass of several batches of bytes [G, B, ...] in training, one after another.

        Args:
            state: as in `logits`.
            batches: the batches.
            moved: receives the buffers after the last batch.
        """
        scores = [self.logits({**state, **moved}, batch, training=True, moved=moved) for batch in batches]
        return Passed(scores, None)

    @property
    def head_names(self) -> list[str]:
        """The names of the head's weights [m, I] and, if it has one, its bias [m]."""
        names = (f"{self._head}.weight", f"{self._head}.bias")
        return [f"{PREFIX}{name}" for name in names if name in self._names]

    def features(self, state: Tensors, images: torch.Tensor) -> torch.Tensor:
        """The input of the head for bytes [B, ...], in evaluation mode: [B, I]."""
        inputs: list[torch.Tensor] = []
        head = self._module.get_submodule(self._head)
        with torch.no_grad(), _hooked(iter([head.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))])):
            self.logits(state, images[None])
        return inputs[-1]

    @property
    def examples_at_once(self) -> int:
        """The best number of examples per call of `squared_gradients`."""
        return min(500, max(1, MAX_COPIED // self._examined.num_trained))

    def squared_gradients(self, state: Tensors, images: torch.Tensor, labels_B: torch.Tensor) -> Tensors:
        """The sum over examples of p(y|x) (d log p(y|x))^2 for all trained tensors, in evaluation mode.

        Each example gets its own copy of all parameters, and so its own gradient. All are computed at once
        (`torch.func.vmap`), or one after another if the module has an operation that cannot be computed so.

        Args:
            state: as in `logits`.
            images: bytes [B, ...].
            labels_B: the true labels.
        """
        given = self._given({name: tensor.detach() for name, tensor in state.items()})
        trained = {name: given.pop(name) for name in self._names if name in self._trained}
        pixels_BCHW, count, dtype = self._pixels(images[None]), len(labels_B), self._surroundings.dtype

        def scores_of(own: Tensors, pixels_CHW: torch.Tensor) -> torch.Tensor:
            return self._computed({**given, **own}, pixels_CHW[None], training=False)[0]

        # (torch.func.grad would import torch's compiler, which takes seconds.)
        copies = {name: tensor.expand(count, *tensor.shape).requires_grad_() for name, tensor in trained.items()}
        with torch.enable_grad(), _in_single_operations():
            try:
                scores_Bm = func.vmap(scores_of)(copies, pixels_BCHW)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError):
                each = [{name: copies[name][number] for name in copies} for number in range(count)]
                scores_Bm = torch.stack([scores_of(*one) for one in zip(each, pixels_BCHW, strict=True)])
            log_p_B = functional.log_softmax(scores_Bm.to(dtype), dim=1).gather(1, labels_B[:, None])[:, 0]
        found = torch.autograd.grad(log_p_B.sum(), list(copies.values()), allow_unused=True, materialize_grads=True)
        p_B = log_p_B.detach().exp()
        squares = (torch.tensordot(p_B, slopes**2, dims=1) for slopes in found)
        return {f"{PREFIX}{name}": square for name, square in zip(copies, squares, strict=True)}

    @property
    def _head(self) -> str:
        return check_head(self._surroundings.scale, self._surroundings.problem)

    def _start(self) -> torch.nn.Module:
        """The module with its initial values."""
        surroundings = self._surroundings
        problem = surroundings.problem
        return _built(NETWORKS[surroundings.scale], problem.input_shape, problem.num_classes, seed=surroundings.seed)

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised pixels [X, C, H, W] of bytes [G, B, ...]."""
        return self._surroundings.normalised(images).reshape(-1, *self._surroundings.problem.input_shape)

    def _given(self, state: Tensors) -> Tensors:
        """The module's tensors; buffers are copies, since a module may write into them."""
        given = {name: state[f"{PREFIX}{name}"] for name in self._names}
        return given | {name: given[name].clone() for name in self._buffers}

    def _computed(self, given: Tensors, pixels_XCHW: torch.Tensor, *, training: bool) -> torch.Tensor:
        """The class scores [X, m]; afterwards `given` has the new buffers."""
        if self._module.training is not training:
            self._module.train(training)
        with self._narrow():
            scores_Xm: torch.Tensor = func.functional_call(self._module, given, (pixels_XCHW,))
        return kernels.cast(scores_Xm, self._surroundings.product_dtype)

    def _narrow(self) -> AbstractContextManager[Any]:
        """Where products have a narrower dtype than what is learned: torch's own choice of operations that do."""
        surroundings = self._surroundings
        if surroundings.product_dtype == surroundings.dtype:
            return nullcontext()
        return torch.autocast(surroundings.device.type, dtype=surroundings.product_dtype)


def check_head(name: str, problem: ProblemShape) -> str:
    """The name of a network's last layer.

    Raises:
        NetworkError: it has none.
    """
    head = examined(name, problem).head
    if head is None:
        raise NetworkError(
            "network-without-head",
            f"network {name!r}: expected class scores that are the output of an nn.Linear, since this method reads "
            "what enters that layer, or trains it separately; given others",
        )
    return head
