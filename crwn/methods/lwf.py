"""LwF, learning without forgetting: on a new task's images, old classes keep the scores that they had (distillation).

Source: Li & Hoiem 2016 (arXiv:1606.09282), for one head over all classes, as implemented in mammoth
(github.com/aimagelab/mammoth, `models/lwf.py`; settings of `utils/best_args.py` for sequential MNIST: learning rate
0.03, weight decay 5e-4, batches of 10, alpha 1, temperature 2, one epoch). Before each task but the first, only the
head is trained, on the new classes, for one epoch over the task's images, without weight decay; a copy of the network
is then the teacher:

    L = mean of -log p(y|x) among all classes seen + alpha mean of -sum over old classes of q log p_2

where q and p_2 are softmaxes at temperature 2 over the old classes' scores of the teacher and of the network. (These
equal mammoth's renormalised roots of softmaxes.) Here the teacher sees each batch as the network does, augmented or
not; mammoth records the teacher's scores of images before augmentation, and trains the head on augmented ones.

Shapes: G = 1 lane, N examples of a task, B of a batch, I inputs of the head, m classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import (
    READ_STRICTLY,
    Blueprint,
    Count,
    Need,
    NotNegative,
    PositiveFloat,
    ProblemShape,
    TrainingSpec,
    check_fields,
    kind_field,
)

if TYPE_CHECKING:
    import torch
    from torch.nn import functional

    from crwn.batches import Batch, Examples
    from crwn.nn import losses
else:
    torch = LazyModule("torch")
    functional = LazyModule("torch.nn.functional")
    losses = LazyModule("crwn.nn.losses")

TEACHER, SEEN, OLD = "teacher.", "classes.seen", "classes.old"
FEATURES_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LwFSpec:
    """LwF's settings.

    Attributes:
        alpha: weight of the distillation loss; with 0, the term is not computed.
        temperature: temperature of both softmaxes.
        warm_up_batch: examples per update while only the head is trained.
        biases: whether FC_H has biases.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("lwf")
    alpha: NotNegative = 1.0
    temperature: PositiveFloat = 2.0
    warm_up_batch: Count = 10
    biases: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """mammoth's settings: SGD at 0.03 with a weight decay of 5e-4."""
        del scale
        return plain_training(0.03, weight_decay=5e-4)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network, its teacher, and masks of the classes seen before the task and including it."""
        needs = frozenset[Need]({"ends", "classes"})
        blueprint = plain_blueprint(scale, problem, seed, biases=self.biases, needs=needs)
        return dataclasses.replace(
            blueprint,
            stored_memory=blueprint.stored_shared + 2 * problem.num_classes,
            multiply_adds=round(4 / 3 * blueprint.multiply_adds),  # the teacher has no backward pass
            activations=round(4 / 3 * blueprint.activations),
        )


def distance(
    logits_GBm: torch.Tensor, taught_GBm: torch.Tensor, old_m: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The distillation loss, the mean over examples of -sum over old classes of q log p, softmaxes over these: [G]."""
    old_m = old_m | ~old_m.any()  # use all classes if none is old, so that the softmax is defined
    taught_GBm = (taught_GBm / temperature).masked_fill(~old_m, -torch.inf).softmax(dim=2)
    log_GBm = (logits_GBm / temperature).masked_fill(~old_m, -torch.inf).log_softmax(dim=2).masked_fill(~old_m, 0)
    return -(taught_GBm * log_GBm).sum(dim=2).mean(dim=1)


class LwF(Method):
    """The learner: a plain network that is its own teacher."""

    def __init__(self, spec: LwFSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = PlainNetwork(surroundings, biases=spec.biases)

    def start_shared(self) -> Tensors:
        """The network's initial state."""
        return self._network.start()

    def start_memory(self) -> Tensors:
        """No classes seen, and a teacher that is not used before the second task."""
        surroundings = self._surroundings
        none_m = torch.zeros(surroundings.problem.num_classes, dtype=torch.bool, device=surroundings.device)
        teacher = {f"{TEACHER}{name}": tensor.detach().clone() for name, tensor in self._network.start().items()}
        return {SEEN: none_m, OLD: none_m.clone(), **teacher}

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        return self._network.logits(state, images, training=training, moved=moved)

    def begin(self, state: Tensors, examples: Examples, rate: float) -> Tensors:
        """The classes seen and, from the second task on, the warmed-up head and a copy of the network as teacher."""
        labels_N = torch.cat([split.labels[0] for split in examples.batches(FEATURES_AT_ONCE)])
        new_m = torch.zeros_like(state[SEEN]).index_fill_(0, labels_N, True)
        classes = {SEEN: state[SEEN] | new_m, OLD: state[SEEN]}
        if examples.segment == 0:
            return classes
        head = self._warmed_up(state, examples, labels_N, new_m, rate)
        network, names = {**state, **head}, [name.removeprefix(TEACHER) for name in state if name.startswith(TEACHER)]
        return classes | head | {f"{TEACHER}{name}": network[name].detach().clone() for name in names}

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """Learn by cross-entropy over the classes seen, plus distillation on the old classes."""
        moved: Tensors = {}
        passed = self._network.passed(state, [batch.images], moved)
        (logits_1Bm,) = passed.logits
        unseen_m = ~state[SEEN]
        masked_1Bm = logits_1Bm.masked_fill(unseen_m, -torch.inf)
        loss_1, slopes_1Bm = losses.mean_with_slopes(masked_1Bm, batch.labels)
        slopes_1Bm = slopes_1Bm.masked_fill(unseen_m, 0)
        if batch.segment and self._spec.alpha:
            teacher = {name.removeprefix(TEACHER): state[name] for name in state if name.startswith(TEACHER)}
            taught_1Bm = self._network.logits(teacher, batch.images)
            pull_1 = self._spec.alpha * distance(logits_1Bm, taught_1Bm, state[OLD], self._spec.temperature)
            loss_1 = loss_1 + pull_1
            slopes_1Bm = slopes_1Bm + torch.autograd.grad(pull_1.sum(), logits_1Bm, retain_graph=True)[0]
        by_hand = passed.by_hand(loss_1, [slopes_1Bm])
        return Step(loss_G=loss_1, logits_GBm=logits_1Bm, moved=moved, by_hand=by_hand)

    def _warmed_up(
        self, state: Tensors, examples: Examples, labels_N: torch.Tensor, new_m: torch.Tensor, rate: float
    ) -> Tensors:
        """The head after SGD on the new classes only; the layers below stay fixed, so features are computed once."""
        images = (split.images[0] for split in examples.batches(FEATURES_AT_ONCE))
        features_NI = torch.cat([self._network.features(state, images_BI) for images_BI in images])
        features_NI = features_NI.to(self._surroundings.dtype)  # the head is trained as it is stored
        answers_Nm = functional.one_hot(labels_N, len(new_m)).to(features_NI.dtype)
        order_N = torch.from_numpy(examples.stream("warm-up").permutation(len(labels_N))).to(labels_N.device)
        head = {name: state[name].detach().clone() for name in self._network.head_names}
        for chosen_B in order_N.split(self._spec.warm_up_batch):
            features_BI = features_NI.index_select(0, chosen_B)
            scores_Bm = functional.linear(features_BI, *head.values()).masked_fill(~new_m, -torch.inf)
            slopes_Bm = (scores_Bm.softmax(dim=1) - answers_Nm.index_select(0, chosen_B)) / len(chosen_B)
            for tensor, slope in zip(head.values(), (slopes_Bm.mT @ features_BI, slopes_Bm.sum(dim=0)), strict=False):
                tensor.sub_(slope, alpha=rate)
        return head
