"""The clock: steps, epochs, samples and the fraction of the run that is done."""

from dlrun.clock import Clock


def test_the_clock_counts_samples_where_steps_are_unknown():
    clock = Clock(0, epochs=2, steps_per_epoch=50, epoch_samples=100)
    clock.tick(30)
    assert (clock.fraction, clock.epochs_done) == (0.15, 0.3)
    clock.tick(90)  # an episode that goes beyond the epoch's end
    assert (clock.fraction, clock.epochs_done) == (0.6, 1.0)
    clock.next_epoch()
    assert clock.epochs_done == 1.2
    clock.tick(200)
    assert (clock.fraction, clock.epochs_done) == (1.0, 2.0)
    assert Clock(0, 2, 50, max_steps=10, epoch_samples=100, step=5).fraction == 0.5


def test_the_clock_counts_steps_and_epochs():
    clock = Clock(0, epochs=3, steps_per_epoch=4)
    assert (clock.total_steps, clock.fraction, clock.position) == (12, 0.0, (0, 0, 0))
    for _ in range(3):
        clock.tick(10)
    assert (clock.fraction, clock.samples, clock.position) == (0.25, 30, (3, 0, 3))
    clock.next_epoch()
    assert clock.position == (3, 1, 0)
    again = Clock(0, epochs=6, steps_per_epoch=4)
    again.load_state_dict(clock.state_dict())
    assert again.epochs == 6 and again.position == clock.position and again.fraction == 0.125
    assert Clock(0, 3, 4, max_steps=6, step=6).fraction == 1.0 and Clock(0, 3, 4, step=99).fraction == 1.0
