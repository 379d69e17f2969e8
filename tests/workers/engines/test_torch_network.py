"""How batches go through a network: cut, filled up, compiled, and within memory."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from roadstream.schemas.errors import DeviceMemoryError
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.device_link import HostLink
from roadstream.workers.engines.torch.memory import memory_told
from roadstream.workers.engines.torch.network import Buckets, Network, Tensors

sizes = st.integers(1, 40)


class Doubling:
    """Doubles what it is given.

    Attributes:
        seen: Batch sizes that came.
        fits: Largest batch that fits into memory.
    """

    def __init__(self, fits: int = 1000) -> None:
        self.seen: list[int] = []
        self.fits = fits

    def __call__(self, inputs: Tensors) -> Tensors:
        size = len(inputs["x"])
        self.seen.append(size)
        if size > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return {"y": 2 * inputs["x"]}


def counting(size: int) -> Tensors:
    return {"x": torch.arange(1.0, size + 1)}


def network(call: Doubling, **settings: object) -> Network:
    return Network(call, TorchSettings(**settings), HostLink(1))  # type: ignore[arg-type]


@given(st.lists(sizes), sizes)
def test_parts_cover_a_batch_and_are_run_with_a_size_that_holds_them(
    given_sizes: list[int], size: int
) -> None:
    cuts = list(Buckets(given_sizes).cut(size))

    assert [row for begin, end, _ in cuts for row in range(begin, end)] == list(range(size))
    for begin, end, bucket in cuts:
        assert end - begin <= bucket
        assert bucket in given_sizes if given_sizes else bucket == size
        assert not any(end - begin <= other < bucket for other in given_sizes)


@given(sizes)
def test_buckets_double_up_to_the_largest_batch(largest: int) -> None:
    found = Buckets.up_to(largest).sizes

    assert found[0] == 1
    assert found[-1] == largest
    assert all(a < b <= 2 * a for a, b in pairwise(found))


@given(st.lists(sizes, max_size=3), sizes)
def test_filling_up_and_cutting_do_not_show(given_sizes: list[int], size: int) -> None:
    call = Doubling()

    found = network(call, buckets=given_sizes).run(counting(size))["y"]

    assert found.tolist() == [2.0 * i for i in range(1, size + 1)]
    assert set(call.seen) <= set(given_sizes or [size])


def test_sizes_that_do_not_fit_into_memory_are_left_out() -> None:
    call = Doubling(fits=5)
    tested = network(call, buckets=[1, 4, 8, 16])
    with torch.inference_mode():
        tested.warm_up(counting, 16)

    assert tested.buckets.sizes == [1, 4]
    assert call.seen == [1, 4, 8]
    assert tested.run(counting(9))["y"].tolist() == [2.0 * i for i in range(1, 10)]
    assert call.seen[3:] == [4, 4, 1]


def test_not_even_one_picture_fits() -> None:
    with pytest.raises(DeviceMemoryError, match="Tried to allocate 2 GiB"):
        network(Doubling(fits=0), buckets=[1, 4]).warm_up(counting, 4)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"
                     " memory: you tried to allocate 1 bytes."),
        RuntimeError("could not create a memory object"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["CUDA", "Python", "CPU", "oneDNN", "cuBLAS"],
)  # fmt: skip
def test_errors_of_too_little_memory_are_told(error: Exception) -> None:
    with pytest.raises(DeviceMemoryError), memory_told():
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory_told():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x48 and 32x1)")


# PyTorch's compiler imports modules of its own that warn of each other.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_gives_what_it_gave_before() -> None:
    def call(inputs: Tensors) -> Tensors:
        centred: Tensor = inputs["x"] - 3.0
        return {"y": torch.nn.functional.gelu(centred) * 2.0}

    plain = Network(call, TorchSettings(), HostLink(1))
    tested = Network(call, TorchSettings(compile=True), HostLink(1))
    with HostLink(1).turn():
        tested.warm_up(counting, 3)

        found, expected = tested.run(counting(3))["y"], plain.run(counting(3))["y"]

    assert tested.buckets.sizes == [1, 2, 3]
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
