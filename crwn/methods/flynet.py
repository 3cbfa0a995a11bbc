"""FlyNet: a fixed sparse expansion modelled on the fly's mushroom body, read out by one modulated layer.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297): encoder z = E x, global inhibition, ReLU; decoder W_t = a_t (R * c_t).
A scale of 10d means N = 10 d hidden units.

Our choices, where the paper leaves a value open: inhibition gamma = 1; every unit sums floor(p d) inputs with p = 0.1;
R's standard deviation is 10/N, so that initial logits are small; c ~ U(-1, 1) drawn anew for each task, a = 1.

Shapes: G tasks, B examples per task, d values per image, N hidden units, m classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le

from crwn.backbone import ArraySpec, BackboneSpec
from crwn.lazy import LazyModule
from crwn.methods import starts
from crwn.methods.protocol import (
    ContextStart,
    ScaleFamily,
    SharedWeights,
    Surroundings,
    Tensors,
    check_range,
    parse_scale,
)
from crwn.methods.starts import ContextFrom, Modulation
from crwn.spec import (
    READ_STRICTLY,
    Blueprint,
    PositiveFloat,
    ProblemShape,
    TrainingSpec,
    check_fields,
    kind_field,
    later_field,
)

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense, flynet
else:
    dense = LazyModule("crwn.nn.dense")
    flynet = LazyModule("crwn.nn.flynet")

EXPANSIONS = ScaleFamily(pattern=r"([1-9][0-9]{0,3})d", examples="10d or 40d")
"""Scales: the number of hidden units as a multiple of the input size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlyNetSpec:
    """FlyNet's settings.

    Attributes:
        modulation: which parts of the decoder are trained: the context (local), the strength (global), or both.
        connectivity: p, the share of the inputs that a hidden unit sums.
        inhibition: gamma, the fraction of the units' mean that is subtracted from each unit.
        decoder_scale: R's standard deviation is this divided by N.
        context_low: lower bound of the uniform initial contexts.
        context_high: upper bound of the uniform initial contexts; equal bounds give a constant.
        initial_strength: the decoder's initial strength for each task.
        context_start: whether each task draws initial contexts of its own, or all start from the same.
        context_from: whether a task starts as drawn, or from the earlier task whose context fits it best (`starts.py`).

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("flynet")
    modulation: Modulation = "local+global"
    connectivity: Annotated[float, Gt(0), Le(1)] = 0.1
    inhibition: Annotated[float, Ge(0)] = 1.0
    decoder_scale: PositiveFloat = 10.0
    context_low: float = -1.0
    context_high: float = 1.0
    initial_strength: float = 1.0
    context_start: ContextStart = later_field("own")
    context_from: ContextFrom = later_field("own")

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("context_low", self.context_low, "context_high", self.context_high)
        starts.check_shared(self.context_start, self.context_low, self.context_high)

    def training(self, scale: str) -> TrainingSpec:
        """The paper's settings: RMSProp at 0.01."""
        del scale
        return TrainingSpec(learning_rate=0.01)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """N = s d units; N + 1 parameters per task (10d on 784 pixels: 7,841).

        Raises:
            ValueError: the scale is unknown, images are not grey, or units lack inputs, or earlier contexts tasks.
        """
        expansion = parse_scale(scale, EXPANSIONS)
        if problem.input_shape[0] != 1:
            raise ValueError(
                f"FlyNet exists for grey images only: expected 1 channel, given {problem.input_shape[0]}; "
                "leave FlyNet out of sweeps over this benchmark"
            )
        num_summed = math.floor(self.connectivity * problem.input_size + 1e-9)  # k/d of d inputs is k, despite rounding
        if num_summed == 0:
            raise ValueError(
                f"connectivity: expected at least 1/{problem.input_size}, so that a unit sums an input, "
                f"given {self.connectivity}"
            )
        num_units = expansion * problem.input_size
        trained, kept = starts.modulated_counts(num_units, 1, self.modulation)
        encoder = ArraySpec(
            name="encoder",
            shape=(num_units, problem.input_size),
            distribution="subset",
            parameter=num_summed,
        )
        decoder = ArraySpec(
            name="decoder",
            shape=(problem.num_classes, num_units),
            distribution="normal",
            parameter=self.decoder_scale / num_units,
        )
        return Blueprint(
            params_per_task=trained,
            trained_per_task=trained,
            stored_per_task=kept + starts.num_kept(self.context_from),
            stored_memory=starts.remembered_numbers(self.context_from, kept, problem),
            # Count only E's ones: in bytes, the dense product costs about as much as sparse sums. No backward pass.
            multiply_adds=num_units * (num_summed + 2 * problem.num_classes),
            activations=problem.input_size + 3 * num_units + problem.num_classes,
            backbone=BackboneSpec(seed=seed, arrays=(encoder, decoder)),
            is_convex=True,  # cross-entropy of scores that are linear in a c
        )


class FlyNet(starts.ContextMethod):
    """The learner: per task a context [N] and a strength of the decoder."""

    def __init__(self, spec: FlyNetSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        (self._factor,), (offset,) = surroundings.normalisation.factors, surroundings.normalisation.offsets
        self._encode = flynet.Encoder(
            surroundings.backbone["encoder"],
            inhibition=spec.inhibition,
            factor=self._factor,
            offset=offset,
            dtype=surroundings.product_dtype,
            kernel=surroundings.kernel,
        )
        self._weights = SharedWeights(surroundings)

    def start(self, tasks: Sequence[int]) -> Tensors:
        """A context drawn anew for each task, and the initial strength."""
        spec, decoder_mN = self._spec, self._surroundings.backbone["decoder"]
        modulated_GX = starts.start_modulated(
            self._surroundings,
            tasks,
            inputs={"decoder": (decoder_mN.shape[1],)},
            modulation=spec.modulation,
            context_range=(spec.context_low, spec.context_high),
            initial_strength=spec.initial_strength,
            context_start=spec.context_start,
        )
        return modulated_GX | starts.start_from(spec.context_from, self._surroundings, tasks)

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The class scores: encode, then decode with each task's modulation."""
        del training, moved
        decoder = dense.DenseLayer(
            weight=self._weights("decoder", self._surroundings.backbone["decoder"]),
            in_scale_GI=state["decoder.context"],
            strength_G=state["decoder.strength"] * self._factor,  # the encoder's output is in units of it
        )
        return dense.in_a_row(self._encode(images.flatten(2)), [decoder], self._surroundings.kernel)
