"""GloVe: counts against a plain loop, the loss against the paper's formula, resuming, and vectors that a run reads."""

import json
import signal
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from finished_runs import trained
from reviews import write_reviews
from runs import assert_same, compose, rows, train
from toys import CPU, composed

import dlrun.data.texts.cooccurrence as cooccurrence
from dlrun.config.build import build
from dlrun.data.texts.cooccurrence import by_rows, count_pairs, drawn
from dlrun.errors import DataError, PairingError, UserError
from dlrun.models.vectors import read_vectors
from dlrun.train.finished import FinishedRun

pytestmark = pytest.mark.usefixtures("undrawn")
KEYS = [
    "model=glove",
    "trainer.device=cpu",
    "model.size=5",
    "data.vocab=40",
    "data.batch_size=7",
    "trainer.log_every=3",
]


def counted(texts: list[list[int]], window: int) -> Counter:
    """What the paper describes, in a loop: each word adds 1 / d to both (a, b) and (b, a)."""
    counts: Counter = Counter()
    for text in texts:
        for place, word in enumerate(text):
            for d in range(1, window + 1):
                if place + d < len(text):
                    for pair in ((word, text[place + d]), (text[place + d], word)):
                        counts[pair] += 1 / d
    return counts


@pytest.mark.parametrize("block", [2**24, 50])
def test_counts_are_those_of_a_loop(monkeypatch, block):
    """Also in several blocks."""
    monkeypatch.setattr(cooccurrence, "BLOCK", block)
    random = np.random.default_rng(0)
    texts = [random.integers(4, 12, random.integers(0, 15)).tolist() for _ in range(30)]
    words = np.array([word for text in texts for word in text], np.int32)
    numbers = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    pairs, counts = count_pairs(words, numbers, 12, 4)
    assert all(a < b for a, b in pairwise(pairs.tolist()))
    starts, columns, values = by_rows(pairs, counts, 12)
    found = {(row, int(columns[k])): values[k] for row in range(12) for k in range(starts[row], starts[row + 1])}
    wanted = counted(texts, 4)
    assert found.keys() == wanted.keys()
    for pair, value in wanted.items():
        assert found[pair] == pytest.approx(value, rel=1e-6), pair
    rows = np.array(sorted(drawn(np.arange(10**5), 1000)))
    assert len(set(rows)) == 1000 and np.histogram(rows, 10, (0, 10**5))[0].min() > 70, "from all of them"


def test_a_batch_has_the_counts_of_its_words_and_the_loss_is_the_papers(tmp_path):
    write_reviews(tmp_path)
    config = composed(f"data_dir={tmp_path}", *KEYS, "data.window=3")
    data = build(config["data"])
    data.load(CPU)
    net = build(config["model"])(data.spec)
    texts = [[*row[row >= 4]] for row in data.encode([text.read_text() for text in trained_texts(tmp_path)]).numpy()]
    wanted = counted(texts, 3)
    whole = torch.zeros(40, 40)
    for split in ("train", "val", "test"):
        for words, counts in data.batches(split):
            assert not (whole[words][counts > 0]).any(), "a pair is in one split only"
            whole[words] += counts
    assert (whole - whole.T).abs().max() < 1e-5
    for (a, b), value in wanted.items():
        assert whole[a, b] == pytest.approx(value, rel=1e-5)
    assert int((whole > 0).sum()) == len(wanted)

    words, counts = next(iter(data.batches("train")))
    task = composed_task(config, net, data)
    error, weight = task.errors(net, (words, counts))
    terms = []
    for row, word in enumerate(words.tolist()):
        for other, x in enumerate(counts[row].tolist()):
            if x > 0:
                out = net.words.weight[word] @ net.contexts.weight[other] + net.bias[word] + net.context_bias[other]
                share = min(1, (x / 100) ** 0.75)
                terms.append((share, share * (out.item() - np.log(x)) ** 2))
    assert weight.item() == pytest.approx(sum(share for share, _ in terms), rel=1e-5)
    assert error.item() == pytest.approx(sum(term for _, term in terms), rel=1e-4)


def trained_texts(root):
    return [path for name in ("neg", "pos") for path in sorted((root / "aclImdb" / "train" / name).iterdir())]


def composed_task(config, net, data):
    from toys import DEVICE, make_update

    return build(config["task"])(net=net, spec=data.spec, device=DEVICE, update=make_update)


def test_a_run_learns_and_its_vectors_are_read_by_another(tmp_path):
    write_reviews(tmp_path, train=200)
    keys = [f"data_dir={tmp_path}", *KEYS, "model.pairs=[[good,great],[good,gone]]", "trainer.test=last"]
    trained(tmp_path / "run", [*keys, "trainer.epochs=30", "optimizer.lr=0.2"])
    losses = [row["train/loss"] for row in rows(tmp_path / "run") if "train/loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    run = FinishedRun(tmp_path / "run")
    words = run.data.spec.words()
    vectors, found = read_vectors(tmp_path / "run" / "vectors.txt", words, 5)
    table = run.task.net.words.weight + run.task.net.contexts.weight
    assert found == len(words) > 20 and torch.equal(vectors, table[4 : 4 + found])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    cosine = torch.cosine_similarity(vectors[words.index("good")], vectors[words.index("great")], 0).item()
    assert summary["test"]["similarity"] == {"good, great": pytest.approx(cosine, abs=1e-6), "good, gone": None}
    assert (tmp_path / "run" / "similarity.csv").read_text().splitlines()[2] == "good,gone,(gone not in the vocabulary)"
    mean = run.task.predict(run.data.encode(["good, zzz great!"]))
    torch.testing.assert_close(mean[0], vectors[[words.index("good"), words.index("great")]].mean(0))
    other = composed(f"data_dir={tmp_path}", "model=lstm", "data.vocab=40", "model.embedding.size=5",
                     f"model.embedding.file={tmp_path / 'run' / 'vectors.txt'}")  # fmt: skip
    net = build(other["model"])(build(other["data"]).spec)
    assert net.description == f"; {found} of {found} words have a vector in vectors.txt"


def test_a_stopped_run_resumes_to_the_bit(tmp_path):
    write_reviews(tmp_path)
    config = compose(f"data_dir={tmp_path}", *KEYS, "trainer.epochs=3")
    train(tmp_path / "a", config, finish=True)
    assert train(tmp_path / "b", config, signals={5: signal.SIGTERM}).number == signal.SIGTERM
    train(tmp_path / "b", config, resumed=True, finish=True)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_texts_of_your_own_need_no_labels(tmp_path):
    lines = [f"the {a} cat and the {b} dog run" for a in ("big", "small", "old") for b in ("red", "blue", "new")]
    (tmp_path / "lines.txt").write_text("\n".join(lines * 4))
    config = composed(f"data_dir={tmp_path}", *KEYS, "data=word_pairs", "data.source.root=lines.txt")
    data = build(config["data"])
    data.load(CPU)
    assert data.num_texts == 36 and set(data.known) == {*"the cat and dog run big small old red blue new".split()}
    folder = tmp_path / "texts" / "any"
    folder.mkdir(parents=True)
    for number, line in enumerate(lines):
        (folder / f"{number}.txt").write_text(line)
    data = build(composed(f"data_dir={tmp_path}", *KEYS, "data=word_pairs")["data"])
    data.load(CPU)
    assert data.num_texts == 9 and data.fitted()["words"][0] == "the"


def test_too_few_texts_and_other_models_are_refused(tmp_path):
    (tmp_path / "texts").write_text("one two\n")
    data = build(composed(f"data_dir={tmp_path}", *KEYS, "data=word_pairs")["data"])
    with pytest.raises(DataError, match=r"the texts have 1 pair of words within data.window=10"):
        data.load(CPU)
    with pytest.raises(PairingError, match="models for imdb_word_pairs: glove"):
        compose("model=lstm", "data=imdb_word_pairs")
    with pytest.raises(PairingError, match="data for glove: "):
        compose("model=glove", "data=imdb")
    with pytest.raises(UserError, match=r"data.spec.vocab=9: expected data.length=400 and data.vocab=40"):
        build(composed(*KEYS, "data.spec.vocab=9")["data"])
    with pytest.raises(UserError, match="words have none"):
        build(composed(*KEYS, "data.spec.classes=2")["data"])
