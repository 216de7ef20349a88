"""Data, model and task that do not fit each other."""

import pytest


def test_a_task_that_cannot_learn_from_the_data_is_refused(refused):
    text = refused("task=vae", "data=moons", "data_dir=/nowhere")
    assert text.startswith("task=vae cannot learn from data=moons\n  vae takes         Image\n")
    assert "tasks for moons:  gan, least_squares, one_hot, supervised, wgan, wgan_gp" in text
    assert "task=ppo cannot learn from data=digits" in refused("task=ppo")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (["model=vae", "task=supervised"], ("a plain network", "VAE", "mlp", "vae")),
        (["task=gan"], ("Pair", "a plain network", "dcgan, gan, wgan, wgan_gp", "segment, supervised")),
        (["model=conv_vae", "task=autoencoder"], ("AutoEncoder", "VAE", "conv_autoencoder", "vae")),
        (["model=ppo", "task=dqn", "data=cartpole"], ("QNetwork", "Policy", "double_dqn, dqn", "ppo, reinforce")),
    ],
)
def test_a_task_that_cannot_train_the_model_is_refused(refused, choice, words):
    lines = refused(*choice, "data_dir=/nowhere").splitlines()
    assert lines[0].startswith("task=") and " cannot train model=" in lines[0]
    assert all(word in line for word, line in zip(words, lines[1:], strict=True))


def test_a_model_that_cannot_learn_from_the_data_is_refused(refused):
    text = refused("model=resnet18", "data=moons", "data_dir=/nowhere")
    assert text.startswith("model=resnet18 cannot learn from data=moons\n  resnet18 takes       Image")
    assert "moons gives          Table(features=2, classes=2)\n" in text
    assert (
        "models for moons:    dcgan, gan, handwritten, linear, matrix_powers, mlp" in text
        and "cifar10, cifar100, coloured_digits, digits," in text
    )


def test_a_network_too_deep_for_the_image_is_refused(refused):
    assert "8x8" in refused("model=lenet", "data=digits")
