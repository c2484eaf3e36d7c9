"""Small experiments with sparse activations: what papers found, on data that is made here or bundled.

Settings are the papers', or torch's defaults, and were not looked for: see docs/sparse.md for what five seeds gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lamina_kernels.sparse import Codes, HardASH, KWinners, UnitActivity, decode, encode, quantize
from tests.threads import one_thread  # noqa: F401

SEEDS = [11, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (12, 13, 14, 15))]
PAIRS = 5
"""Tasks of the digits: 0 and 1, 2 and 3, and so on."""


class Learned(NamedTuple):
    """Accuracies on held-out digits, of all ten classes, in the mean of the pairs.

    Attributes:
        at_once: Of each pair right after it was learned.
        at_the_end: Of each pair after the last one was.
    """

    at_once: float
    at_the_end: float

    @property
    def forgotten(self) -> float:
        """What is lost between."""
        return self.at_once - self.at_the_end


def pair_after_pair(model: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], seed: int) -> Learned:
    """Learn five pairs of digits, one pair after the other, ten epochs each, by Adagrad with its own learning rate."""
    sklearn = pytest.importorskip("sklearn.datasets")
    images, labels = (torch.tensor(part) for part in sklearn.load_digits(return_X_y=True))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    x, y = (images[order] / 16).float(), labels[order]
    training, test = slice(0, 1437), slice(1437, None)
    x = x - x[training].mean(0)
    optimizer = torch.optim.Adagrad(parameters)

    def accuracy(pair: int) -> float:
        own = y[test] // 2 == pair
        with torch.no_grad():
            return float((model(x[test][own]).argmax(1) == y[test][own]).double().mean())

    at_once = []
    for pair in range(PAIRS):
        own = (y[training] // 2 == pair).nonzero()[:, 0]
        for _ in range(10):
            for batch in own[torch.randperm(len(own), generator=generator)].split(32):
                optimizer.zero_grad()
                cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
        at_once.append(accuracy(pair))
    return Learned(sum(at_once) / PAIRS, sum(accuracy(pair) for pair in range(PAIRS)) / PAIRS)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_stands_out_is_forgotten_less(seed: int) -> None:
    """S026: a layer of Hard ASH beside its ReLU twin, of a thousand units."""

    def learned(*, sparse: bool) -> Learned:
        torch.manual_seed(seed)
        hidden, out = nn.Linear(64, 1000), nn.Linear(1000, 10)

        def model(x: Tensor) -> Tensor:
            if not sparse:
                return out(hidden(x).relu())
            return out(encode(x, hidden.weight, hidden.bias, select=HardASH(0.05)).codes.dense())

        return pair_after_pair(model, [*hidden.parameters(), *out.parameters()], seed)

    ash, relu = learned(sparse=True), learned(sparse=False)
    assert min(ash.at_once, relu.at_once) > 0.95
    assert ash.forgotten < relu.forgotten
    assert ash.at_the_end > relu.at_the_end


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


@pytest.mark.parametrize("seed", SEEDS)
def test_a_table_of_pairs_forgets_less_than_a_dense_head(seed: int) -> None:
    """S234: both stand on the same fixed layer."""
    hidden = torch.randn(200, 64, generator=torch.Generator().manual_seed(seed)) / 8
    table, dense = torch.zeros(200 * 200, 10, requires_grad=True), torch.zeros(10, 200, requires_grad=True)
    by_pairs = pair_after_pair(
        lambda x: decode(pairs(encode(x, hidden, select=KWinners(10)).codes), table), [table], seed
    )
    by_units = pair_after_pair(lambda x: (x @ hidden.T).relu() @ dense.T, [dense], seed)
    assert min(by_pairs.at_once, by_units.at_once) > 0.9
    assert by_pairs.forgotten < by_units.forgotten


def density(width: int, seed: int, *, labels: int, rate: float) -> float:
    """Fit random labels for 2,000 steps of Adam, and return the share of a hidden ReLU layer that is active."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    x, y = torch.randn(512, 32, generator=generator), torch.randint(labels, (512,), generator=generator)
    hidden, out = nn.Linear(32, width), nn.Linear(width, labels)
    optimizer = torch.optim.Adam([*hidden.parameters(), *out.parameters()], lr=rate)
    for _ in range(2000):
        batch = torch.randint(512, (64,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(out(hidden(x[batch]).relu()), y[batch]).backward()
        optimizer.step()
    state = UnitActivity(width)
    with torch.no_grad():
        for part in x.split(100):
            state.update(hidden(part).relu())
    return float(state.result().density.mean())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13, 14, 15])
def test_wider_layers_are_sparser_on_random_labels_where_steps_are_large(seed: int) -> None:
    """S349: at ten times Adam's own rate; at that itself the width makes no difference, which docs/sparse.md says."""
    narrow, middle, wide = (density(width, seed, labels=100, rate=1e-2) for width in (64, 256, 1024))
    assert narrow > middle > wide


STATES, DIGITS = 100, 10


class Forced(NamedTuple):
    """What codes have to do with states.

    Attributes:
        precision: The share of states in the code of most of whose states they are.
        nearest: The share of codes which, forced, make the distribution of their own state rather than of another.
        own: The distance of that distribution from the state's, in total variation.
        others: From the mean other state's.
    """

    precision: float
    nearest: float
    own: float
    others: float


def machine(seed: int, *, neurons: int = 32, codes: int = 1000, steps: int = 1000) -> Forced:
    """Train a network on a finite-state machine, then with a codebook in the place of its bottleneck.

    A state has two digits and ten successors; what is to be told from both digits is the first digit of the next state.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    edges = torch.rand(STATES, STATES, generator=generator).topk(10, dim=1).indices
    after = torch.zeros(STATES, STATES).scatter(1, edges, 0.1).view(STATES, DIGITS, DIGITS).sum(2)
    embedding = nn.Embedding(2 * DIGITS, 32)
    low = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, neurons))
    high = nn.Sequential(nn.Linear(neurons, 128), nn.ReLU(), nn.Linear(128, DIGITS))

    def rows(states: Tensor) -> Tensor:
        return low(torch.cat([embedding(states // DIGITS), embedding(DIGITS + states % DIGITS)], 1))

    def train(parameters: Sequence[Tensor], loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        optimizer = torch.optim.Adam(parameters)
        for _ in range(steps):
            states = torch.randint(STATES, (512,), generator=generator)
            optimizer.zero_grad()
            loss(rows(states), torch.multinomial(after[states], 1, generator=generator)[:, 0]).backward()
            optimizer.step()

    def through_codes(x: Tensor, digit: Tensor) -> Tensor:
        found = quantize(x, book, 1, distance="cosine")
        return cross_entropy(high(found.output), digit) + (found.chosen - x.detach()).square().mean()

    network = [*embedding.parameters(), *low.parameters(), *high.parameters()]
    train(network, lambda x, digit: cross_entropy(high(x), digit))
    with torch.no_grad():
        book = rows(torch.randint(STATES, (codes,), generator=generator))
        book += 0.1 * book.std() * torch.randn(book.shape, generator=generator)
    book.requires_grad_()
    train([*network, book], through_codes)
    with torch.no_grad():
        states = torch.arange(STATES)
        ids = quantize(rows(states), book, 1, distance="cosine").codes.ids[:, 0].long()
        counts = torch.zeros(codes, STATES).index_put((ids, states), torch.ones(STATES), accumulate=True)
        used = counts.sum(1) > 0
        state_of = counts.argmax(1)[used]
        distances = 0.5 * (high(book[used]).softmax(1)[:, None] - after).abs().sum(2)
        own = distances.gather(1, state_of[:, None])[:, 0]
        others = (distances.sum(1) - own) / (STATES - 1)
    nearest = (distances.argmin(1) == state_of).double().mean()
    return Forced(float(counts.amax(1).sum() / STATES), float(nearest), float(own.mean()), float(others.mean()))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13, 14, 15])
def test_codes_of_a_bottleneck_are_the_states_of_a_machine_and_force_it(seed: int) -> None:
    """S250: a hundred states, 32 neurons."""
    found = machine(seed)
    assert found.precision > 0.95
    assert found.nearest > 0.95
    assert found.own < 0.5 * found.others


def test_codes_of_separate_directions_are_these_directions() -> None:
    """S250, by argument: codes that are rows, of directions further apart than their noise, name one direction each."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.cat([torch.eye(6), -torch.eye(6)])
    at = torch.arange(600) % 12
    rows = directions[at] + 0.05 * torch.randn(600, 6, generator=generator)
    ids = quantize(rows, rows[:48], 1, distance="cosine").codes.ids[:, 0].long()
    assert torch.equal(at[:48][ids], at)
