"""Small experiments with sparse activations: what papers found, on data that is made here or bundled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lamina_kernels.sparse import Codes, HardASH, KWinners, UnitActivity, decode, encode, quantize

Layer = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Steps are small: threads that wait for each other on a busy machine take seconds for nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def digits() -> tuple[Tensor, Tensor]:
    """Return the bundled digits, [1797, 64], each pixel less its mean, and their labels."""
    sklearn = pytest.importorskip("sklearn.datasets")
    images, labels = sklearn.load_digits(return_X_y=True)
    rows = torch.tensor(images / 16).float()
    return rows - rows.mean(0), torch.tensor(labels)


def ash(x: Tensor, weight: Tensor) -> Tensor:
    return encode(x, weight, select=HardASH(0.02)).codes.dense()


def relu(x: Tensor, weight: Tensor) -> Tensor:
    return linear(x, weight).relu()


def remembered(layer: Layer, *, width: int = 500) -> float:
    """Learn five pairs of digits, one pair after the other, and return the accuracy on all of them."""
    images, labels = digits()
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(width, 64, generator=generator) / 3).requires_grad_()
    out = torch.zeros(10, width, requires_grad=True)
    optimizer = torch.optim.SGD([hidden, out], lr=0.03)
    for pair in range(5):
        own = ((labels // 2) == pair).nonzero()[:, 0]
        for _ in range(20):
            batch = own[torch.randint(len(own), (32,), generator=generator)]
            optimizer.zero_grad()
            cross_entropy(linear(layer(images[batch], hidden), out), labels[batch]).backward()
            optimizer.step()
    return float((linear(layer(images, hidden), out).argmax(1) == labels).double().mean())


def test_what_stands_out_is_forgotten_less() -> None:
    """A layer of Hard ASH keeps more of the digits that came first than its ReLU twin (S026)."""
    assert remembered(ash) > 0.8 > 0.5 > remembered(relu)


def pairs(codes: Codes) -> Codes:
    """Return codes of the pairs of units that are active together, with the products of their values."""
    k = codes.ids.shape[1]
    first, second = torch.triu_indices(k, k, 1)
    ids = codes.ids[:, first].long() * codes.width + codes.ids[:, second]
    return Codes(codes.values[:, first] * codes.values[:, second], ids, codes.width**2)


def test_weights_of_pairs_that_win_together_learn_and_no_other() -> None:
    """S234: exactly k winners, and k (k - 1) / 2 weights of an output with a gradient."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.rand(1, 9, generator=generator), torch.randn(40, 9, generator=generator)
    table = torch.zeros(40 * 40, 3, requires_grad=True)
    codes = encode(x, weight, select=KWinners(6)).codes
    decode(pairs(codes), table).sum().backward()
    assert table.grad is not None
    assert codes.values.count_nonzero() == 6
    assert (table.grad != 0).sum(0).tolist() == [15, 15, 15]
    touched = table.grad[:, 0].nonzero()[:, 0]
    assert set((touched // 40).tolist()) | set((touched % 40).tolist()) == set(codes.ids[0].tolist())


def remembered_by_pairs() -> float:
    """Learn pairs of digits as above, by winners of a fixed layer and a table of their pairs."""
    images, labels = digits()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 64, generator=generator)
    table = torch.zeros(200 * 200, 10, requires_grad=True)
    select = KWinners(10)
    for pair in range(5):
        own = ((labels // 2) == pair).nonzero()[:, 0]
        for _ in range(40):
            batch = own[torch.randint(len(own), (32,), generator=generator)]
            codes = encode(images[batch], hidden, select=select).codes
            (slope,) = torch.autograd.grad(cross_entropy(decode(pairs(codes), table), labels[batch]), table)
            with torch.no_grad():
                table -= 0.1 * slope
    found = decode(pairs(encode(images, hidden, select=select).codes), table)
    return float((found.argmax(1) == labels).double().mean())


def test_a_table_of_pairs_forgets_less_than_a_dense_layer() -> None:
    assert remembered_by_pairs() > 0.6 > 0.5 > remembered(relu)


def density(width: int) -> float:
    """Train a hidden layer on random labels, and return the share of it that is active."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 32, generator=generator)
    labels = torch.randint(100, (512,), generator=generator)
    hidden = (torch.randn(width, 32, generator=generator) / 32**0.5).requires_grad_()
    bias = torch.zeros(width, requires_grad=True)
    out = (torch.randn(100, width, generator=generator) / width**0.5).requires_grad_()
    optimizer = torch.optim.Adam([hidden, bias, out], lr=1e-2)
    for _ in range(300):
        batch = torch.randint(512, (64,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(linear(linear(x[batch], hidden, bias).relu(), out), labels[batch]).backward()
        optimizer.step()
    state = UnitActivity(width)
    for part in x.split(100):
        state.update(linear(part, hidden.detach(), bias.detach()).relu())
    return float(state.result().density.mean())


def test_wider_layers_are_sparser_even_on_random_labels() -> None:
    """S349: the share of active units falls with the width."""
    narrow, middle, wide = density(32), density(128), density(512)
    assert narrow > middle > wide
    assert narrow > wide + 0.03


STATES, TOKENS, NEURONS, CODES = 24, 6, 8, 96


def machine(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return rows of a finite-state machine: states [n], noisy one-hot; and the distribution after each state."""
    states = torch.randint(STATES, (2000,), generator=generator)
    logits = 3 * torch.randn(STATES, TOKENS, generator=generator)
    return states, logits.softmax(1)


def test_codes_of_a_bottleneck_are_the_states_of_a_machine_and_force_it() -> None:
    """S250: more states than neurons; codes map to states, and forcing a code forces what comes after it."""
    generator = torch.Generator().manual_seed(0)
    states, after = machine(generator)
    # What the layers before have made of the state: a direction, and noise.
    directions = torch.nn.functional.normalize(torch.randn(STATES, NEURONS, generator=generator), dim=1)
    rows = directions[states] + 0.03 * torch.randn(len(states), NEURONS, generator=generator)
    book = rows[:CODES].clone().requires_grad_()
    out = torch.zeros(TOKENS, NEURONS, requires_grad=True)
    mixing = torch.zeros(64, NEURONS, requires_grad=True)
    head = (torch.randn(TOKENS, 64, generator=generator) / 8).requires_grad_()
    with torch.no_grad():
        mixing.copy_(torch.randn(64, NEURONS, generator=generator))
    targets = after[states]

    def tokens(hidden: Tensor) -> Tensor:
        return linear(linear(hidden, mixing).relu(), head) + linear(hidden, out)

    optimizer = torch.optim.Adam([book, out, mixing, head], lr=1e-2)
    for _ in range(150):
        found = quantize(rows, book, 1, distance="cosine")
        loss = cross_entropy(tokens(found.chosen), targets) + (found.chosen - rows).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ids = quantize(rows, book, 1, distance="cosine").codes.ids[:, 0].long()
    counts = torch.zeros(CODES, STATES).index_put((ids, states), torch.ones(len(ids)), accumulate=True)
    assert counts.amax(1).sum() / len(ids) > 0.95
    # A code of another state, forced, makes the distribution of that state.
    state_of = counts.argmax(1)
    used = counts.sum(1) > 0
    forced = tokens(decode(Codes(torch.ones(CODES, 1), torch.arange(CODES)[:, None], CODES), book)).softmax(1)
    distance = 0.5 * (forced - after[state_of]).abs().sum(1)[used]
    assert distance.mean() < 0.1
    others = 0.5 * (forced - after[(state_of + 1) % STATES]).abs().sum(1)[used]
    assert others.mean() > 0.4
