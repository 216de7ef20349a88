"""Word vectors: read, written, compared; one run starts from those of another; predictions from a checkpoint alone."""

import csv
import shutil

import pytest
import torch
from reviews import write_reviews
from runs import train
from test_rnn import KEYS, SHORT, SPEC, VECTORS
from toys import CPU, composed, learn, make_task, seeded

from dlrun.config.build import build
from dlrun.errors import DataError
from dlrun.models.embedding import Embed
from dlrun.models.rnn import recurrent
from dlrun.models.vectors import read_vectors, write_neighbours, write_similarity, write_vectors
from dlrun.output.checkpoint import load
from dlrun.output.folders import read_summary
from dlrun.spec import Tokens

pytestmark = pytest.mark.usefixtures("undrawn")


def make(spec=SPEC, **embedding):
    with seeded():
        return recurrent(spec, embedding=Embed(**VECTORS | embedding), **KEYS)


def words_spec(words):
    class Worded(Tokens):
        def words(self):
            return words

    return Worded(9, 20, 3)


def test_vectors_from_a_file(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2 3 4\nfilm 0.5 -1e-1 0 2\nnot-wanted 1 1 1 1\nthe 9 9 9 9\nat name 7 7 7 7\n")
    net = make(words_spec(("film", "zebra", "the")), file=str(path), train=False)
    table = net.embedding.weight
    assert table[4:7].tolist() == [[0.5, pytest.approx(-0.1), 0, 2], [0, 0, 0, 0], [1, 2, 3, 4]]
    assert not table[:4].any() and not table[7:].any() and not table.requires_grad
    assert net.description == "; 2 of 3 words have a vector in vectors.txt"
    before = table.clone()
    learn(make_task(net, SPEC, lr=0.1), (SHORT, torch.tensor([0, 1, 2])), 3)
    assert torch.equal(net.embedding.weight, before), "frozen"
    trained = make(words_spec(("film",)), file=str(path))
    learn(make_task(trained, SPEC, lr=0.1), (SHORT, torch.tensor([0, 1, 2])), 3)
    assert not torch.equal(trained.embedding.weight, before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2 3 4\nfilm 1 2 3\n", r"line 2: 3 numbers after the word\n  expected 4 numbers .model.embedding.size"),
        ("the" + " 1" * 50, r"line 1: 50 numbers after the word"),
        ("film 1 2 3 4\nthe 1 2 3 4 5\n", "line 2: 5 numbers after the word"),
        ("the 1 2 x 4", "line 1: a value that is not a finite number after the word"),
        ("the 1 2 nan 4", "line 1: a value that is not a finite number after the word"),
        ("zebra 1 2 3 4\n", "has none of the 2 words: expected the same language"),
        ("", "has none of the 2 words"),
        (None, "No such file or directory\n  expected a text file with a word and its numbers per line"),
    ],
)
def test_bad_vectors_are_named(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_vectors(path, ("the", "film"), 4)


def test_the_header_of_word2vec_files_is_skipped(tmp_path):
    (tmp_path / "v.txt").write_text("2 3\nthe 1 2 3\n")
    assert read_vectors(tmp_path / "v.txt", ("the",), 3)[0].tolist() == [[1, 2, 3]]


def test_a_missing_file_names_the_commands_that_make_one(tmp_path):
    with pytest.raises(DataError, match="dl-run experiment=imdb_glove_vectors makes one of the IMDB reviews"):
        read_vectors(tmp_path / "vectors.txt", ("the",), 4)


def test_random_vectors_may_stay_as_they_are():
    net = make(train=False)
    assert not net.embedding.weight.requires_grad
    assert net.description == "; random word vectors, which stay as they are (model.embedding.train=false)"


def test_a_run_uses_the_vectors_of_its_words(tmp_path):
    write_reviews(tmp_path)
    (tmp_path / "v.txt").write_text("good 1 2 3\nbad -1 -2 -3\n")
    keys = ["model=lstm", "model.embedding.size=3", f"model.embedding.file={tmp_path / 'v.txt'}", "data.vocab=40"]
    config = composed(f"data_dir={tmp_path}", *keys)
    data = build(config["data"])
    net = build(config["model"])(data.spec)
    data.load(CPU)
    row = 4 + data.spec.words().index("bad")
    assert net.embedding.weight[row].tolist() == [-1, -2, -3]


# Written, and read again


def test_vectors_are_written_and_read_to_the_bit(tmp_path):
    words = ("it's", "\u00e9t\u00e9\u2026", "a\u0085b", "7", "1e5")
    with seeded():
        vectors = torch.randn(5, 3) * 10.0 ** torch.randint(-30, 30, (5, 3))
    (tmp_path / "v.txt").write_text(write_vectors(words, vectors), encoding="utf-8")
    assert (tmp_path / "v.txt").read_text(encoding="utf-8").count("\n") == 5
    found, count = read_vectors(tmp_path / "v.txt", words, 3)
    assert count == 5 and torch.equal(found, vectors)


def test_neighbours_are_those_computed_by_hand():
    vectors = torch.tensor([[2.0, 0.0], [5.0, 5.0], [-1.0, 0.0], [0.0, 0.0]])
    table = write_neighbours(["a", "gone"], ("a", "b", "c", "d"), vectors).splitlines()
    assert table == [
        "word,neighbour,cosine",
        "a,b,0.7071",
        "a,d,0.0000",
        "a,c,-1.0000",
        "gone,(not in the vocabulary),",
    ]


def test_similarities_of_pairs_are_those_computed_by_hand():
    vectors = torch.tensor([[2.0, 0.0], [5.0, 5.0], [-1.0, 0.0]])
    table = write_similarity([("a", "b"), ("c", "a"), ("a", "gone")], ("a", "b", "c"), vectors).splitlines()
    assert table == ["word,other,cosine", "a,b,0.7071", "c,a,-1.0000", "a,gone,(gone not in the vocabulary)"]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run on the user's classes, which wrote its vectors, and its config."""
    root = tmp_path_factory.mktemp("vectors")
    write_reviews(root / "data", train=200)
    shutil.move(root / "data" / "aclImdb", root / "data" / "texts")
    config = composed(*run_keys(root), "model.embedding.save=true", "model.embedding.neighbours=[good,gone]")
    train(root / "first", (config, {"data": "text_folder", "model": "gru"}), finish=True)
    return root, config


def run_keys(root):
    keys = ["data=text_folder", "model=gru", "model.units=8", "model.embedding.size=8", "model.input_dropout=0.1"]
    keys += ["data.length=12", "data.batch_size=16", "trainer.epochs=5", "optimizer.lr=0.02", "data.vocab=1000"]
    return [f"data_dir={root / 'data'}", *keys]


def test_a_run_writes_its_vectors_and_neighbours(first):
    root, config = first
    best = load(root / "first" / "checkpoints" / "best.ckpt")
    words = best["data"]["words"]
    vectors, count = read_vectors(root / "first" / "vectors.txt", words, 8)
    assert count == len(words) and torch.equal(vectors, best["state_dict"]["embedding.weight"][4 : 4 + count])
    with open(root / "first" / "neighbours.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows] == ["good"] * 10 + ["gone"]
    cosines = torch.cosine_similarity(vectors, vectors[[words.index("good")]])
    nearest = cosines.argsort(descending=True)[1].item()
    assert rows[0]["neighbour"] == words[nearest]
    assert float(rows[0]["cosine"]) == pytest.approx(cosines[nearest].item(), abs=1e-4)
    data = build(config["data"])
    data.restore(best["data"], CPU)
    net = build(config["model"])(data.spec)  # as one that is loaded from its checkpoint
    net.load_state_dict(best["state_dict"])
    again = net.report().files
    assert again == {
        name: (root / "first" / name).read_text() for name in ("vectors.txt", "neighbours.csv", "similarity.csv")
    }


def test_a_run_can_start_from_the_vectors_of_another(first, tmp_path):
    root, _ = first
    config = composed(*run_keys(root), f"model.embedding.file={root / 'first' / 'vectors.txt'}", "trainer.max_steps=1")
    train(tmp_path / "run", (config, {}))
    count = len(load(root / "first" / "checkpoints" / "best.ckpt")["data"]["words"])
    assert (
        f"parameters; {count} of {count} words have a vector in vectors.txt\n" in (tmp_path / "run/run.log").read_text()
    )


def test_a_checkpoint_alone_predicts_raw_texts(first, tmp_path):
    """Neither the data nor the file of vectors exists any more."""
    root, _ = first
    shutil.copytree(root / "data", tmp_path / "data")
    shutil.copy(root / "first" / "vectors.txt", tmp_path)
    keys = [f"model.embedding.file={tmp_path / 'vectors.txt'}", "model.embedding.train=false"]
    config = composed(*run_keys(tmp_path), *keys)
    train(tmp_path / "run", (config, {}), finish=True)
    texts = {name: sorted((tmp_path / "data/texts/test" / name).iterdir()) for name in ("neg", "pos")}
    raw, true = zip(*[(path.read_text(), name) for name, paths in texts.items() for path in paths], strict=True)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "vectors.txt").unlink()

    state = load(tmp_path / "run" / "checkpoints" / "best.ckpt")
    data = build(config["data"])
    data.restore(state["data"], CPU)
    net = build(config["model"])(data.spec)
    task = make_task(net, data.spec)
    task.load_best_state(state["state_dict"])
    found = [data.spec.labels[place] for place in task.predict(data.encode(list(raw))).argmax(1).tolist()]
    results = read_summary(tmp_path / "run")["test"]
    assert sum(a == b for a, b in zip(found, true, strict=True)) / len(raw) == results["test/acc"] > 0.9
    assert results["acc_per_class"].keys() == {"neg", "pos"}, "the folders' names"
    assert data.fitted() == state["data"]
