"""TensorBoard: one curve without gaps or repeated points, also after a kill."""

import shutil
import time
import warnings

import pytest
from runs import Killed, assert_same, die, rows, train

from dlrun.output.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("undrawn")


def points(folder):
    """Its scalars, as TensorBoard shows them: (step, value) by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TensorBoard itself
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(folder / "tensorboard"))
        board.Reload()
        return {name: [(e.step, e.value) for e in board.Scalars(name)] for name in board.Tags()["scalars"]}


@pytest.mark.parametrize(
    "every", [2, 4]
)  # the last checkpoint before the kill: in mid-epoch; at the end of an epoch, before its row
def test_tensorboard_shows_one_curve(every, config, tmp_path):
    composed = config(f"trainer.checkpoint_every_steps={every}", "trainer.log_every=2", "trainer.checkpoint_gap=99")
    train(tmp_path / "a", composed)
    with pytest.raises(Killed):
        die(tmp_path / "b", composed, step=6)
    time.sleep(1.1)  # TensorBoard orders its files by seconds
    train(tmp_path / "b", composed, resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    names = {name for row in rows(tmp_path / "a") for name in row if "/" in name} | {"lr"}
    found, expected = points(tmp_path / "b"), points(tmp_path / "a")
    for name in names:
        assert found[name] == expected[name], name
    assert [step for step, _ in found["train/loss"]] == [4, 8]
    assert [step for step, _ in found["step/loss"]] == [2, 4, 6, 8]


def test_tensorboard_has_the_test_points_when_the_summary_says_finished(config, tmp_path, monkeypatch):
    def killed(self, steps):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "forget_tested", killed)  # the first thing after the summary
        with pytest.raises(Killed):
            train(tmp_path, config(), finish=True)
        assert {"test/acc", "test/loss"} <= points(tmp_path).keys()


def test_a_run_survives_the_removal_of_its_curves(config, tmp_path, capsys):
    from dlrun.output.run_folder import RunFolder

    sync = RunFolder.sync

    def removing(self):
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        sync(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "sync", removing)
        assert train(tmp_path, config(), finish=True).reason == "finished"
    assert "tensorboard/ was removed during the run" in capsys.readouterr().out
