"""Paths of data: where they are looked for, and how a run's config keeps them."""

import pytest
from omegaconf import OmegaConf
from toys import composed

from dlrun.config.saved import portable
from dlrun.errors import DataError
from dlrun.paths import find


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder beside the data folder `store`, with the same names in both."""
    for folder in ("here/cat", "here/sub/dog", "store/cat", "store/sub/dog", "store/only/dog"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize(("path", "place"), [
    (".", "here"), ("..", ""), ("./cat", "here/cat"), ("../here/sub", "here/sub"), ("sub/dog", "here/sub/dog"),
    ("cat/", "here/cat"), ("cat", "store/cat"), ("only/dog", "store/only/dog"), ("only", "store/only"),
])  # fmt: skip
def test_relative_paths_and_home_are_resolved(here, path, place):
    assert find(path, here.parent / "store", "data.root", "a folder") == here.parent / place


@pytest.mark.parametrize("path", ["./only", "../here/only", "./store"])
def test_a_relative_path_is_looked_for_in_the_working_folder_only(here, path):
    with pytest.raises(DataError, match=rf"data.root={path}: there is no {here}/"):
        find(path, here.parent / "store", "data.root", "a folder")


@pytest.mark.parametrize(("path", "kept"), [
    (".", "{here}"), ("./cat", "{here}/cat"), ("sub/dog", "{here}/sub/dog"), ("only/dog", "${{data_dir}}/only/dog"),
    ("cat", "cat"), ("/nowhere", "/nowhere"), ("./nowhere", "./nowhere"),
])  # fmt: skip
@pytest.mark.parametrize(("data", "key"), [
    ("image_folder", "data.root"), ("mask_folder", "data.root"), ("text_folder", "data.root"),
])  # fmt: skip
def test_a_config_keeps_where_its_data_is(here, path, kept, data, key):
    """A run that is resumed from another folder reads the same data."""
    config = portable(OmegaConf.create(composed(f"data={data}", f"{key}={path}", "data_dir=../store")))
    saved = OmegaConf.to_container(config, resolve=False)
    assert saved["data_dir"] == str(here.parent / "store")
    for name in key.split("."):
        saved = saved[name]
    assert saved == kept.format(here=here)
