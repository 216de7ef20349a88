"""Steps of several tasks at once, by the code of the first: its `step` runs on the batches of all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Batch, Data, EnvData, SampleData
from dlrun.errors import Diverged
from dlrun.seeds import mix
from dlrun.stack.axes import per_job
from dlrun.stack.functions import NotStackable
from dlrun.stack.losses import ClassWeights, Losses, Penalties, Scalings
from dlrun.stack.net import StackedNet
from dlrun.stack.pieces import ranges
from dlrun.stack.play import Collectors, Replays, evaluate
from dlrun.stack.update import StackedUpdate, backward
from dlrun.stack.watch import is_known
from dlrun.system.convolutions import ProductConv2d
from dlrun.system.replay import StepReplay
from dlrun.tasks.base import Metrics, Task
from dlrun.tasks.rl.a2c import A2C
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.dqn import DQN
from dlrun.tasks.rl.ppo import PPO
from dlrun.tasks.segmentation import Segment
from dlrun.tasks.supervised import Supervised

MOST = 2**22  # numbers in the inputs that are evaluated at once
AHEAD = 2**18  # numbers in the inputs of batches that are put together at once
HELD: dict[type[Task], tuple[str, ...]] = {  # components beside network and updates that have a stacked form
    PPO: ("collector", "penalty"),
    A2C: ("collector",),
    DQN: ("collector", "target", "replay"),
}


class Lockstep:
    """K tasks of one kind.

    task: a copy of the first whose network, updates and means are those of all. settings: a text for each job with the
    task's keys but l1 and l2; neighbours with equal texts have equal losses. Raises NotStackable if a step of the tasks
    has no stacked form.
    """

    def __init__(
        self, tasks: Sequence[Task], net: StackedNet, updates: Mapping[str, StackedUpdate], settings: Sequence[str]
    ) -> None:
        self.tasks, self.net, self.updates = [check(task) for task in tasks], net, updates
        self.nets = [net]  # and those of targets
        self.task: Task = copy(tasks[0])
        self.task.net, self.task.jobs = net.net, net.jobs
        self.is_known = all(map(is_known, [*net.net.modules(), tasks[0]]))
        if isinstance(self.task, Supervised):
            each = cast("list[Supervised]", self.tasks)
            self.task.scaling = Scalings([task.scaling for task in each], net.jobs)
            self.task.loss = Losses([task.loss for task in each], ranges(settings), net.jobs)
            if any(task.class_weights is not None for task in each):
                self.task.class_weights = ClassWeights(each, net.jobs)  # type: ignore[assignment]  # stands for a tensor
            self.task.penalty = Penalties(each, net)  # type: ignore[assignment]  # stands for a Penalty
            self._replay(self.task)
        elif len(set(settings)) > 1:
            raise NotStackable(f"the jobs differ in the keys of task={type(self.task).__name__.lower()}")
        if isinstance(self.task, RLTask):
            rl_tasks = cast("list[RLTask]", self.tasks)
            self.task.collector = self.collectors = Collectors([each.collector for each in rl_tasks], net.jobs)
            self.task.observe = self.observe  # type: ignore[method-assign]  # of all jobs
        if isinstance(self.task, DQN):
            learners = cast("list[DQN]", self.tasks)
            self.nets.append(StackedNet([each.target for each in learners]))
            self.task.target = self.nets[-1].net  # type: ignore[assignment]  # stands for a net
            self.task.replay = Replays([each.replay for each in learners], net.jobs)  # type: ignore[assignment]  # stands for a Replay
        self.use(updates)

    def _replay(self, task: Supervised) -> None:
        """Replay steps on a CPU, if all that they run is code of torch and of this package, which keeps no state."""
        if self.is_known and task.device.torch_device.type == "cpu" and not task.scoring:
            leaves = list(self.net.leaves.values())
            task.graphs = StepReplay(task._learn, backward, leaves, lambda: self.net.jobs.generators)

    def use(self, updates: Mapping[str, object]) -> None:
        """Use these updates in the steps."""
        for name, update in updates.items():
            setattr(self.task, name, update)

    def batches(self, all_data: Sequence[Data], clocks: Sequence[Clock]) -> Iterator:
        """Iterate over the batches of the clocks' epoch, which hold those of all jobs, of one size each."""
        self.net.train()
        if isinstance(self.task, RLTask):
            self.collectors.clocks = clocks
            return self.task.batches(cast(EnvData, all_data[0]), clocks[0])
        each = [task.batches(data, clock) for task, data, clock in zip(self.tasks, all_data, clocks, strict=True)]
        return together(each)

    def step(self, batch: Any, clocks: Sequence[Clock]) -> Metrics:
        """Learn from a batch of all jobs. Returns metrics: (K,), or a value for each sample (K, B)."""
        self.net.jobs.seed([clock.seed for clock in clocks], clocks[0].step)
        metrics, k = self.task.step(batch, clocks[0]), self.net.jobs.num
        if common := [name for name, value in metrics.items() if not value.dim()]:
            raise NotStackable(f"{common[0]} of {type(self.task).__name__} is not a mean of task.jobs")
        return {name: value if len(value) == k else per_job(value, k) for name, value in metrics.items()}

    def evaluate(self, all_data: Sequence[Data], clocks: Sequence[Clock]) -> list[dict[str, float]]:
        """The metrics of the val split, of each job: of all at once where that is known to be the same."""
        data, has_averages = all_data[0], any(update.averages for update in self.updates.values())
        is_one = self.is_known and not has_averages
        if is_one and isinstance(self.task, RLTask) and self.task.greedy:
            return evaluate(self.task, cast(EnvData, data), "val")
        is_common = all(each is data for each in all_data)
        if is_one and isinstance(self.task, Supervised) and is_common and not self.task.scoring:
            totals = self.task.totals(parts(cast(SampleData, data), self.net.jobs.num)) / data.size("val")
            return [dict(zip(self.task.means, each, strict=True)) for each in totals.T.tolist()]
        each = []
        for task, data, clock in zip(self.tasks, all_data, clocks, strict=True):
            torch.manual_seed(mix(clock.seed, clock.step, 0))  # as before a step of the job alone
            each.append(task.evaluate(data, "val"))
        return each

    def observe(self, obs: Tensor) -> None:
        """RLTask.observe of each job."""
        for task, of_job in zip(self.tasks, per_job(obs, self.net.jobs.num), strict=True):
            cast(RLTask, task).observe(of_job)

    def release(self) -> None:
        """Let go of the jobs' networks, before they are stacked anew."""
        for net in self.nets:
            net.release()

    def hand_back(self) -> None:
        """Copy back to the jobs the state that only the stack has changed, except networks and updates."""
        if isinstance(self.task, RLTask):
            self.collectors.hand_back()

    def diverged(self, clocks: Sequence[Clock]) -> dict[int, Diverged]:
        """The errors of the jobs, by their place in the stack, whose losses in the last step were not finite."""
        errors: dict[int, Diverged] = {}
        for name, update in self.updates.items():
            for k in update.broken:
                errors.setdefault(k, self.tasks[k].named_updates()[name].diverged(update.values[k], clocks[k]))
        return errors


def parts(data: SampleData, k: int) -> Iterator[Batch]:
    """The batches of the val split, in parts that K jobs can evaluate at once: at most MOST numbers for all of them."""
    for x, y in data.batches("val"):
        rows = max(1, MOST * len(x) // (k * x.numel()))
        yield from zip(x.split(rows), y.split(rows), strict=True)


def together(jobs: Sequence[Iterator[Batch]]) -> Iterator[tuple[Tensor, ...]]:
    """The batches of all jobs, one after another in each. Several are put together at once, if they are small."""
    ahead = 1
    while True:
        blocks = [list(islice(batches, ahead)) for batches in jobs]
        steps = list(zip(*blocks, strict=True))
        if not steps:
            return
        for parts in zip(*steps[0], strict=True):
            if any(part.shape != parts[0].shape for part in parts):
                raise NotStackable("the data has another shape in some of the jobs")
        columns = []
        for i in range(len(steps[0][0])):
            joined = torch.cat([batch[i] for step in steps for batch in step])
            columns.append(joined.split([sum(batch[i].shape[0] for batch in step) for step in steps]))
        yield from zip(*columns, strict=True)
        ahead = max(1, AHEAD // columns[0][0].numel())


def is_of_dlrun(loss: Callable) -> bool:
    """Whether a loss, or what it calls, is one of this package's, which give a loss for each sample."""
    while isinstance(loss, partial):
        inner = next((each for each in loss.args if callable(each)), None)
        loss = inner or loss.func
    return str(loss.__module__).startswith("dlrun.")


def check(task: Task) -> Task:
    """Return the task. Raises NotStackable if its steps have no stacked form."""
    held = {"net", *task.named_updates(), *HELD.get(type(task), ())}
    others = [name for name in task.components if name not in held]
    in_the_way = {
        "trainer.processes": task.device.dist.size > 1,
        f"{type(task).__name__}: its {', '.join(others)}": bool(others),
    }
    if isinstance(task, Supervised | Segment):
        freezing = task.freezing
        in_the_way["task.class_weights"] = isinstance(task, Segment) and task.class_weights is not None
        in_the_way["task.freeze"] = bool(freezing.moments) or any(start for start in freezing.start.values())
    if isinstance(task, PPO):
        in_the_way["task.target_kl or task.kl_target"] = bool(task.target_kl or task.penalty.target)
    if isinstance(task, Supervised):
        in_the_way |= {
            "trainer.cuda_graph": task.graphs is not None,
            "task.grad_accum_steps": task.grad_accum_steps > 1,
            "task.mixup or task.cutmix": bool(task.mixing),
            "task.resize": bool(task.resizing.moments),
            "task.threshold": bool(task.scoring.decision.metric),
            "a loss of your own": not is_of_dlrun(task.loss),
        }
    if found := [key for key, is_set in in_the_way.items() if is_set]:
        raise NotStackable(f"{found[0]} has no stacked form")
    if product := next((n for n, module in task.net.named_modules() if isinstance(module, ProductConv2d)), None):
        why = "its weight gradients are products here; trainer.conv_gradients=torch has a stacked form"
        raise NotStackable(f"{product} of Conv2d: {why}")
    return task
