"""Where a task's context starts: from its own draw, from a draw shared by all tasks, or from an earlier task's context.

A context here is everything in a task's own state that is trained or moves: NeuroModNet's and FlyNet's contexts and
strengths, BatchE's factors, running statistics. What earlier tasks learned is memory, with one row per segment, under
the names of a task's own tensors; so tasks are learned one by one, and resume points contain it.

Shapes: G tasks, S segments, K earlier ones, B examples, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from crwn.faults import InvalidError
from crwn.lazy import LazyModule
from crwn.methods.protocol import ContextStart, Method, Surroundings, Tensors

if TYPE_CHECKING:
    import torch

    from crwn.batches import Examples
    from crwn.nn import losses
    from crwn.spec import ProblemShape
else:
    torch = LazyModule("torch")
    losses = LazyModule("crwn.nn.losses")

Modulation: TypeAlias = Literal["local+global", "local", "global"]
"""Which tensors of a modulated layer are trained: contexts (local), strengths (global), or both."""

ContextFrom: TypeAlias = Literal["own", "best"]
"""Whether a task starts as drawn, or from the best earlier context if that is clearly better than chance."""

FROM = "started_from"
"""The name of the tensor [G] with the segment whose context a task started from; -1: its own start."""

LEARNED = "learned."
"""The prefix of the names in memory of what earlier tasks learned."""

PROBE = 128
"""Number of training images on which earlier contexts are compared: one batch of the paper's size."""

TIMES_CHANCE = 2
"""An earlier context is used only if its accuracy on these images exceeds chance by this factor."""


@runtime_checkable
class StartsContexts(Protocol):
    """The interface of a method's spec that sets how contexts start."""

    @property
    def context_start(self) -> ContextStart:
        """Whether contexts start alike."""


def how_started(method: object, kept: Sequence[Tensors]) -> tuple[str, ...]:
    """How each learned task's context started: `own`, `shared` or `task 3`; empty if all had their own start.

    Args:
        method: the method's spec.
        kept: one dictionary per task, each tensor with a task axis of length 1.
    """
    if not isinstance(method, StartsContexts):
        return ()
    places = [int(own[FROM]) if FROM in own else -1 for own in kept]
    found = tuple(method.context_start if place < 0 else f"task {place}" for place in places)
    return found if set(found) != {"own"} else ()


def modulated_counts(num_inputs: int, num_layers: int, modulation: Modulation) -> tuple[int, int]:
    """The numbers of trained and of stored values per task of a modulated network.

    Args:
        num_inputs: total inputs of all modulated layers, one context value each.
        num_layers: number of modulated layers, one strength each.
        modulation: what is trained; contexts and strengths are stored whether trained or not.
    """
    contexts = num_inputs if modulation != "global" else 0
    strengths = num_layers if modulation != "local" else 0
    return contexts + strengths, num_inputs + num_layers


def start_modulated(
    surroundings: Surroundings,
    tasks: Sequence[int],
    *,
    inputs: Mapping[str, tuple[int, ...]],
    modulation: Modulation,
    context_range: tuple[float, float],
    initial_strength: float,
    context_start: ContextStart,
) -> Tensors:
    """Initial contexts [G, I] or [G, I, k, k] and strengths [G] of the modulated layers.

    Args:
        surroundings: draws the contexts.
        tasks: the tasks.
        inputs: the shape of each layer's context, by the layer's name.
        modulation: what is trained.
        context_range: bounds of the uniform initial contexts.
        initial_strength: the initial strengths.
        context_start: whether tasks start alike.
    """
    state = {}
    for layer, shape in inputs.items():
        context_GI = surroundings.draw(tasks, f"{layer}.context", shape, *context_range, start=context_start)
        strength_G = torch.full((len(tasks),), initial_strength, device=surroundings.device, dtype=surroundings.dtype)
        state[f"{layer}.context"] = context_GI.requires_grad_(modulation != "global")
        state[f"{layer}.strength"] = strength_G.requires_grad_(modulation != "local")
    return state


def check_shared(context_start: ContextStart, low: float, high: float) -> None:
    """Check that a shared start makes a difference, so that no two specs mean the same trial.

    Raises:
        ValueError: it makes none, since equal bounds start all tasks alike.
    """
    if context_start == "shared" and low == high:
        raise InvalidError(
            "start-shared-anyway",
            f"context_start: expected 'own', given 'shared': every context starts at {low}, so tasks start alike "
            "already; leave it out, or give the initial contexts a range",
        )


def remembered_numbers(context_from: ContextFrom, own_numbers: int, problem: ProblemShape) -> int:
    """The count of numbers remembered of earlier tasks.

    Args:
        context_from: where contexts start.
        own_numbers: the count of numbers that a task trains or moves.
        problem: the benchmark's sizes.

    Raises:
        ValueError: no earlier context could ever be used.
    """
    if context_from == "own":
        return 0
    if problem.num_tasks == 1:
        raise InvalidError(
            "no-earlier-task",
            "context_from: expected 'own' for a benchmark of 1 task, given 'best': no task is learned before it",
        )
    if problem.num_classes <= TIMES_CHANCE:
        raise InvalidError(
            "never-above-chance",
            f"context_from: expected 'own' for tasks of {problem.num_classes} classes, given 'best': an earlier "
            f"context is taken only where its accuracy is above {TIMES_CHANCE} times chance, here "
            f"{TIMES_CHANCE / problem.num_classes:.0%}",
        )
    return problem.num_segments * own_numbers


def num_kept(context_from: ContextFrom) -> int:
    """The count of numbers kept of each task to say where it started."""
    return 0 if context_from == "own" else 1


def start_from(context_from: ContextFrom, surroundings: Surroundings, tasks: Sequence[int]) -> Tensors:
    """The tensor that says where tasks started from, initially -1; none if all start as drawn."""
    if context_from == "own":
        return {}
    return {FROM: torch.full((len(tasks),), -1, device=surroundings.device)}


def start_memory(own: Tensors, num_segments: int) -> Tensors:
    """Memory for what each segment learns: [S, ...] by name, empty if tasks start as drawn.

    Args:
        own: one task's own tensors [1, ...].
        num_segments: S.
    """
    if FROM not in own:
        return {}
    return {
        LEARNED + name: tensor.detach().new_zeros((num_segments, *tensor.shape[1:]))
        for name, tensor in own.items()
        if name != FROM
    }


def remembered(state: Tensors, segment: int) -> Tensors:
    """The memory with a segment's own tensors added; empty without memory."""
    with torch.no_grad():
        added = {name: state[name].clone() for name in state if name.startswith(LEARNED)}
        for name, learned in added.items():
            learned[segment] = state[name.removeprefix(LEARNED)][0]
    return added


def best_start(logits: Callable[[Tensors, torch.Tensor], torch.Tensor], state: Tensors, examples: Examples) -> Tensors:
    """The start of a task: the tensors of the earlier segment whose context fits it best, or else the task's own.

    The best has the lowest mean cross-entropy on `PROBE` random training images of the new task, in test mode. It is
    used only if its accuracy on them is above `TIMES_CHANCE` times chance: a bad start is worse than a fresh one.

    Args:
        logits: the class scores of images [1, B, ...] with a state, [1, B, m].
        state: the task's, with memory.
        examples: the task's training examples.

    Returns:
        New values by name, including which segment it is; empty without memory, or for the first segment.
    """
    names = [name.removeprefix(LEARNED) for name in state if name.startswith(LEARNED)]
    if not names or examples.segment == 0:
        return {}
    probe = examples.drawn(PROBE, "context from")
    found = []
    with torch.no_grad():
        for place in range(examples.segment):
            earlier = {name: state[LEARNED + name][place : place + 1] for name in names}
            logits_1Bm = logits(state | earlier, probe.images)
            correct_1B = logits_1Bm.argmax(dim=2) == probe.labels
            loss_1 = losses.cross_entropy(logits_1Bm, probe.labels)
            found.append((loss_1, correct_1B.to(loss_1.dtype).mean(dim=1)))
        loss_K, accuracy_K = (torch.cat(values) for values in zip(*found, strict=True))
        best_1 = loss_K.argmin(dim=0, keepdim=True)
        is_taken_1 = accuracy_K.index_select(0, best_1) > TIMES_CHANCE / logits_1Bm.shape[2]
        start = {FROM: torch.where(is_taken_1, best_1, state[FROM])}
        for name in names:
            learned = state[LEARNED + name].index_select(0, best_1)
            start[name] = torch.where(is_taken_1.view(-1, *[1] * (learned.dim() - 1)), learned, state[name].detach())
    return start


class ContextMethod(Method):
    """A method whose setting `context_from` may start tasks from what an earlier task learned."""

    _surroundings: Surroundings

    def start_memory(self) -> Tensors:
        """Memory for what tasks learn, if later tasks may start from it."""
        return start_memory(self.start([0]), self._surroundings.problem.num_segments)

    def begin(self, state: Tensors, examples: Examples, rate: float) -> Tensors:
        """Start the task from an earlier one, if one fits."""
        del rate
        return best_start(self.logits, state, examples)

    def end(self, state: Tensors, examples: Examples) -> Tensors:
        """Remember what the task learned."""
        return remembered(state, examples.segment)
