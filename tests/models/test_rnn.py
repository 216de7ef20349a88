"""Recurrent models: parameters, the book's initialisation, the written-out cells, padding, dropout, word vectors."""

from math import sqrt

import pytest
import torch
from reviews import write_reviews
from runs import train
from toys import composed, learn, make_task, seeded

from dlrun.config.build import build
from dlrun.models.bag_of_words import bag_of_words
from dlrun.models.embedding import Embed
from dlrun.models.recurrence import unroll
from dlrun.models.rnn import KINDS, align, initialise_keras, recurrent
from dlrun.spec import Tokens

pytestmark = pytest.mark.usefixtures("undrawn")

BOOK = Tokens(80, vocab=10_000, classes=2)
SPEC = Tokens(9, vocab=20, classes=3)
KEYS = dict(
    kind="lstm", units=5, layers=2, bidirectional=False, dropout=0.0, input_dropout=0.0, head="last",
    mask_padding=False, cell="fused", init="keras",
)  # fmt: skip
VECTORS = dict(size=4, file=None, train=True, neighbours=[], pairs=[], save=False)
SHORT = torch.tensor([[0, 0, 0, 0, 1, 7, 8, 9, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 0, 0, 0, 0, 0, 0, 0, 1]])


def make(spec=SPEC, seed=0, embedding=None, **keys):
    with seeded(seed):
        return recurrent(spec, embedding=embedding or Embed(**VECTORS), **KEYS | keys)


# Against the book


@pytest.mark.parametrize(("kind", "params"), [("rnn", 1_018_881), ("lstm", 1_075_329), ("gru", 1_056_897)])
def test_the_books_parameters(kind, params):
    with torch.device("meta"):
        net = build(composed(f"model={kind}")["model"])(BOOK)
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == params
    assert net(torch.empty(2, 80, device="meta")).shape == (2, 1)


def test_bag_of_words_has_the_parameters_of_its_header():
    net = build(composed("model=bag_of_words")["model"])(BOOK)
    assert sum(p.numel() for p in net.parameters()) == 160_305


@pytest.mark.parametrize("kind", KINDS)
def test_keras_initialisation(kind):
    with seeded():
        layer = KINDS[kind](7, 6, batch_first=True)
        initialise_keras(layer)
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[kind]
    limit = sqrt(6 / (7 + 6 * gates))
    assert 0.7 * limit < layer.weight_ih_l0.abs().max() <= limit
    torch.testing.assert_close(layer.weight_hh_l0.T @ layer.weight_hh_l0, torch.eye(6))
    expected = [0.0] * 6 + [1.0] * 6 + [0.0] * 12 if kind == "lstm" else [0.0] * 6 * gates
    assert layer.bias_ih_l0.tolist() == expected and not layer.bias_hh_l0.any()
    assert layer.bias_hh_l0.requires_grad == (kind == "gru")


def test_keras_embedding_is_small_and_uniform():
    weight = make(Tokens(3, 5000, 2)).embedding.weight
    assert weight.abs().max() <= 0.05 and weight.std().item() == pytest.approx(0.1 / sqrt(12), rel=0.02)


# The cells from their formulas


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 7, 1])])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loop_equals_the_fused_layer(kind, bidirectional, lengths):
    with seeded():
        layer = KINDS[kind](4, 5, batch_first=True, bidirectional=bidirectional).double()
        x = torch.randn(3, 7, 4, dtype=torch.float64)
    if lengths is None:
        expected = layer(x)[0]
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        expected = torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=7)[0]
    found = unroll(layer, x, lengths)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(y.square().sum(), list(layer.parameters())) for y in (found, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("head", ["last", "mean", "max"])
@pytest.mark.parametrize("kind", KINDS)
def test_models_with_the_loop_equal_fused_ones(kind, head, mask_padding):
    keys = dict(kind=kind, head=head, mask_padding=mask_padding, bidirectional=True)
    fused, loop = (make(cell=cell, **keys) for cell in ("fused", "loop"))
    assert fused.state_dict().keys() == loop.state_dict().keys()
    torch.testing.assert_close(loop(SHORT), fused(SHORT))


# Padding


@pytest.mark.parametrize("cell", ["fused", "loop"])
@pytest.mark.parametrize("head", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_masked_padding_does_not_count(bidirectional, head, cell):
    net = make(bidirectional=bidirectional, head=head, cell=cell, mask_padding=True)
    after = torch.tensor([[1, 7, 8, 9, 3, 0, 0, 0, 0]])
    alone = net(torch.tensor([[1, 7, 8, 9, 3]]))
    torch.testing.assert_close(net(SHORT)[:1], alone)
    torch.testing.assert_close(net(after), alone)
    unmasked = make(bidirectional=bidirectional, head=head, cell=cell)
    assert not torch.allclose(unmasked(SHORT)[:1], unmasked(after), atol=1e-4), "else it does"


def test_sequences_are_aligned_to_their_ends():
    tokens, lengths = align(torch.cat((SHORT, torch.zeros(1, 9, dtype=torch.long))))
    assert lengths.tolist() == [5, 9, 1, 1]
    assert tokens[0].tolist() == [1, 7, 8, 9, 3, 0, 0, 0, 0] and tokens[2].tolist() == [1] + [0] * 8


def test_the_last_outputs_of_both_directions_depend_on_all_words():
    net = make(bidirectional=True, layers=1)
    x = net.embedding(SHORT)
    forward, backward = net.layers[0](x)[0].split(5, 2)
    torch.testing.assert_close(net(SHORT), net.output(torch.cat((forward[:, -1], backward[:, 0]), 1)))


# Dropout


def test_input_dropout_uses_one_mask_for_all_steps():
    net = make(input_dropout=0.5, layers=1)
    seen = []
    net.layers[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    tokens = torch.full((50, 9), 7)
    with seeded():
        net(tokens)
    (x,) = seen
    assert torch.equal(x, x[:, :1].expand_as(x)), "the same word at all times stays the same"
    assert 0.35 < (x == 0).float().mean() < 0.65 and len({tuple(row) for row in (x[:, 0] == 0).tolist()}) > 1
    whole = net.embedding.weight[7]
    torch.testing.assert_close(x.amax((0, 1)).relu() + x.amin((0, 1)).neg().relu(), 2 * whole.abs())
    assert torch.equal(net.eval()(tokens), net(tokens))


def test_dropout_between_layers_is_drawn_for_every_step():
    net = make(dropout=0.5)
    seen = []
    net.layers[1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0] == 0))
    net(torch.full((4, 9), 7))
    assert not torch.equal(seen[0], seen[0][:, :1].expand_as(seen[0]))


# Learning


@pytest.mark.thorough(but=["gru-False", "rnn-True", "lstm-False"])
@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_networks_remember_the_first_word(kind, mask_padding):
    with seeded():
        x = torch.randint(2, 20, (60, 6))
    spec = Tokens(6, 20, 2)
    task = make_task(make(spec, kind=kind, units=16, mask_padding=mask_padding), spec, lr=0.01)
    losses = learn(task, (x, (x[:, 0] > 10).long()), 120)
    assert losses[-1] < 0.1 * losses[0]


def test_a_run_learns_reviews(tmp_path):
    write_reviews(tmp_path / "data", train=200)
    keys = ["model=gru", "model.units=8", "model.embedding.size=8", "model.input_dropout=0.1", "optimizer.lr=0.02"]
    config = composed(
        f"data_dir={tmp_path / 'data'}", *keys, "data.length=12", "data.batch_size=16", "trainer.epochs=6"
    )
    train(tmp_path / "run", (config, {"data": "imdb", "model": "gru"}), finish=True)
    from dlrun.output.folders import read_summary

    found = read_summary(tmp_path / "run")
    assert found["test"]["test/acc"] > 0.95
    assert found["test"]["acc_per_class"].keys() == {"negative", "positive"}


# Bag of words


def test_bag_of_words_ignores_order_and_number_of_words():
    with seeded():
        net = bag_of_words(SPEC, hidden=[4], dropout=0.0, init="torch")
    a, b, c = ([0, 0, 1, 5, 6], [5, 6, 6, 1, 1], [1, 5, 5, 5, 5])
    out = net(torch.tensor([a, b, c], dtype=torch.int32))
    assert torch.equal(out[0], out[1]) and not torch.equal(out[0], out[2])
