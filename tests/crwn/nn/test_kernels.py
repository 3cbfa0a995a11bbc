"""The two ways to compute products, and the choice between them.

Shapes: G tasks, X examples, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeAlias

import pytest
import torch

from crwn.nn import kernels
from crwn.nn.kernels import ONEDNN, PLAIN, Kernel, choose_kernel

Layout: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Product: TypeAlias = Callable[[Kernel, torch.Tensor, torch.Tensor], torch.Tensor]

PRODUCTS: dict[str, Product] = {
    "linear": lambda kernel, x, W: kernel.linear(x, W),
    "frozen forward": lambda kernel, x, W: kernel.freeze(W).forward(x),
    "frozen backward": lambda kernel, g, W: kernel.freeze(W.t()).backward(g),
}
NUM_INPUTS, NUM_OUTPUTS = 130, 70  # neither fills oneDNN's blocks evenly


def as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, a column after the other."""
    return tensor.mT.contiguous().mT


def expanded(tensor: torch.Tensor) -> torch.Tensor:
    """One column, seen again and again, as the gradient of a sum is."""
    return tensor[..., :1].expand_as(tensor)


batches = pytest.mark.parametrize("num_examples", [1, 96, 500])
layouts = pytest.mark.parametrize(
    ("of_input", "of_weight"), [(as_it_is, as_it_is), (transposed, transposed), (expanded, as_it_is)]
)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])


def assert_is_product(output_XO: torch.Tensor, input_XI: torch.Tensor, weight_OI: torch.Tensor) -> None:
    """|fl(x . w) - x . w| <= I u |x| . |w|, however it is summed (Higham 2002, equation 3.5).

    Here eps = 2 u stands for u, because the product compared with rounds as well. bfloat16 is summed in float32 and
    then rounded once.
    """
    assert output_XO.dtype == input_XI.dtype
    exact_XO = input_XI.double() @ weight_OI.double().mT
    magnitudes_XO = input_XI.double().abs() @ weight_OI.double().abs().mT
    assert output_XO.shape == exact_XO.shape
    summed_in = torch.promote_types(output_XO.dtype, torch.float32)
    allowed_XO = input_XI.shape[-1] * torch.finfo(summed_in).eps * magnitudes_XO
    if summed_in != output_XO.dtype:
        allowed_XO += torch.finfo(output_XO.dtype).eps * exact_XO.abs()
    assert ((output_XO.double() - exact_XO).abs() <= allowed_XO).all()


@dtypes
@layouts
@batches
@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_a_shared_product_is_that_of_float64(
    *,
    product: Product,
    num_examples: int,
    of_input: Layout,
    of_weight: Layout,
    dtype: torch.dtype,
    kernel: Kernel,
    numbers: Callable[..., torch.Tensor],
) -> None:
    """Of examples [X, I] and [2, X, I], within the rounding of a sum."""
    weight_OI = of_weight(numbers(NUM_OUTPUTS, NUM_INPUTS).to(dtype))
    for batch_shape in ((num_examples,), (2, num_examples)):
        input_XI = of_input(numbers(*batch_shape, NUM_INPUTS).to(dtype))
        assert_is_product(product(kernel, input_XI, weight_OI), input_XI, weight_OI)


@dtypes
@layouts
@batches
@pytest.mark.parametrize("num_tasks", [1, 3])
def test_a_product_of_each_task_is_that_of_float64(
    *,
    num_tasks: int,
    num_examples: int,
    of_input: Layout,
    of_weight: Layout,
    dtype: torch.dtype,
    kernel: Kernel,
    numbers: Callable[..., torch.Tensor],
) -> None:
    """Each task's examples with its own weight, within the rounding of a sum."""
    input_GXI = of_input(numbers(num_tasks, num_examples, NUM_INPUTS).to(dtype))
    weight_GOI = of_weight(numbers(num_tasks, NUM_OUTPUTS, NUM_INPUTS).to(dtype))
    assert_is_product(kernel.own_linear(input_GXI, weight_GOI), input_GXI, weight_GOI)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_onednn_leaves_float64_to_pytorch(product: Product, numbers: Callable[..., torch.Tensor]) -> None:
    """It has no such routine; every bit is that of the plain kernel."""
    input_XI, weight_OI = numbers(96, NUM_INPUTS), numbers(NUM_OUTPUTS, NUM_INPUTS)
    assert torch.equal(product(ONEDNN, input_XI, weight_OI), product(PLAIN, input_XI, weight_OI))


def random_bytes(num_examples: int, num_inputs: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    bytes_XI = torch.randint(0, 256, (num_examples, num_inputs), dtype=torch.uint8, generator=generator)
    bytes_XI[0] = 255
    return bytes_XI


def test_a_product_of_bytes_with_zeros_and_ones_is_exact(kernel: Kernel) -> None:
    """Of a batch with FlyNet's encoder for MNIST, against 64-bit integers; one unit adds up 784 times 255."""
    bytes_XI = random_bytes(128, 784)
    weight_OI = (torch.rand(7840, 784, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    weight_OI[0] = 1
    output_XO = kernel.freeze_integers(weight_OI)(bytes_XI)
    assert output_XO.dtype == torch.float32
    assert torch.equal(output_XO.long(), bytes_XI.long() @ weight_OI.long().t())


@pytest.mark.parametrize("layout", [as_it_is, transposed])
@pytest.mark.parametrize(
    ("smallest", "largest"),
    [
        (-64, 64),
        pytest.param(
            -128,
            127,
            marks=pytest.mark.skipif(
                not torch.cpu._is_vnni_supported(),
                reason="without VNNI oneDNN adds pairs of products in 16 bits: exact only from -64 to 64",
            ),
        ),
    ],
)
def test_a_product_of_bytes_with_integers_is_exact(smallest: int, largest: int, layout: Layout, kernel: Kernel) -> None:
    """Of a range of weights, its ends among them, against 64-bit integers."""
    bytes_XI = layout(random_bytes(7, 100))
    weight_OI = torch.randint(smallest, largest + 1, (33, 100), generator=torch.Generator().manual_seed(0))
    weight_OI[0], weight_OI[1] = smallest, largest
    output_XO = kernel.freeze_integers(layout(weight_OI.float()))(bytes_XI)
    assert output_XO.dtype == torch.float32
    assert torch.equal(output_XO.long(), bytes_XI.long() @ weight_OI.t())


@dtypes
@layouts
def test_what_follows_a_frozen_product_is_what_it_is_alone(
    *, of_input: Layout, of_weight: Layout, dtype: torch.dtype, kernel: Kernel, numbers: Callable[..., torch.Tensor]
) -> None:
    """ReLU after it, and a product element by element, which is rounded once where bfloat16 would be rounded twice."""
    input_XI = of_input(numbers(3, 50, NUM_INPUTS).to(dtype))
    frozen = kernel.freeze(of_weight(numbers(NUM_OUTPUTS, NUM_INPUTS).to(dtype)))
    output_XO = frozen.forward(input_XI)
    assert (output_XO < 0).any()
    assert torch.equal(frozen.forward(input_XI, relu=True), output_XO.relu())

    grad_XO, times_XI = of_input(numbers(3, 50, NUM_OUTPUTS).to(dtype)), of_input(numbers(3, 50, NUM_INPUTS).to(dtype))
    before = times_XI.clone()
    found_XI = frozen.backward(grad_XO, times=times_XI)
    assert found_XI.dtype == dtype
    assert torch.equal(times_XI, before)
    expected_XI = frozen.backward(grad_XO).double() * times_XI.double()
    torch.testing.assert_close(found_XI.double(), expected_XI, rtol=2 * torch.finfo(dtype).eps, atol=0)


@dtypes
@layouts
@pytest.mark.parametrize("num_tasks", [1, 3])
def test_a_rectified_product_is_the_product_rectified(
    *,
    num_tasks: int,
    of_input: Layout,
    of_weight: Layout,
    dtype: torch.dtype,
    kernel: Kernel,
    numbers: Callable[..., torch.Tensor],
) -> None:
    """With a weight that moves, shared or of each task's own; the input stays as it is."""
    input_GXI = of_input(numbers(num_tasks, 50, NUM_INPUTS).to(dtype))
    weight_GOI = of_weight(numbers(num_tasks, NUM_OUTPUTS, NUM_INPUTS).to(dtype))
    before = input_GXI.clone()
    for product, weight in ((kernel.linear, weight_GOI[0]), (kernel.own_linear, weight_GOI)):
        output_GXO = product(input_GXI, weight)
        assert (output_GXO < 0).any()
        assert torch.equal(product(input_GXI, weight, relu=True), output_GXO.relu())
    assert torch.equal(input_GXI, before)


@pytest.mark.parametrize(
    ("device", "dtype", "chosen"),
    [
        ("cpu", torch.float32, "onednn"),
        ("cpu", torch.bfloat16, "onednn"),
        ("cpu", torch.float64, "plain"),
        ("cuda", torch.float32, "plain"),
        ("cuda", torch.bfloat16, "plain"),
    ],
)
def test_the_kernel_follows_from_device_and_dtype(device: str, dtype: torch.dtype, chosen: str) -> None:
    """Never from a timing, by which two runs of a trial on one machine could differ."""
    if not ONEDNN.is_available():
        pytest.skip("this build of torch lacks oneDNN's routines")
    assert choose_kernel(device, dtype) == chosen


def lacking(space: str, name: str) -> tuple[object, str, object]:
    """The patch that takes a routine away."""
    others = {other: None for of, other in kernels.ONEDNN_ROUTINES if of == space and other != name}
    return torch.ops, space, SimpleNamespace(**others)


@pytest.mark.parametrize(
    ("place", "name", "without"),
    [(torch.backends.mkldnn, "is_available", lambda: False), *(lacking(*one) for one in kernels.ONEDNN_ROUTINES)],
    ids=["oneDNN", *(name for _, name in kernels.ONEDNN_ROUTINES)],
)
def test_a_build_of_torch_that_lacks_a_routine_computes_plainly(
    place: object, name: str, without: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OneDNN whole, or any of the routines that have no public name."""
    monkeypatch.setattr(place, name, without)
    assert not ONEDNN.is_available()
    assert choose_kernel("cpu", torch.float32) == "plain"


def test_without_bfloat16_on_this_processor_such_products_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """OneDNN refuses them there; everything else is as it was."""
    monkeypatch.setattr(kernels, "_has_bfloat16", lambda: False)
    half = torch.ones(4, 4, dtype=torch.bfloat16)
    assert type(ONEDNN.freeze(half)) is type(kernels.PLAIN.freeze(half))
    assert torch.equal(ONEDNN.linear(half, half), half * 4)
    assert type(ONEDNN.freeze(half.float())) is not type(kernels.PLAIN.freeze(half))
