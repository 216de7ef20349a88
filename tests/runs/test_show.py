"""`dl-runs show`: the command of a run."""

import shlex

from dlrun import cli


def test_the_command_of_a_run_names_its_config_folder(dl_run, tmp_path):
    """It can be pasted: it names the user's config folder and has quotes where the shell needs them."""
    from dlrun.runs.show import command_line

    (tmp_path / "my configs" / "model").mkdir(parents=True)
    text = (cli.CONFIGS / "model" / "mlp.yaml").read_text()
    (tmp_path / "my configs" / "model" / "wide.yaml").write_text(text)
    given = ["model=wide", "model.hidden=[8]", "data=moons", "trainer.epochs=1"]
    assert dl_run("--config-dir", "my configs", *given, "run_dir=here")[0] == 0
    command = command_line(tmp_path / "here")
    assert command == "dl-run model=wide 'model.hidden=[8]' data=moons trainer.epochs=1 '--config-dir=my configs'"
    assert dl_run(*shlex.split(command)[1:])[0] == 0
