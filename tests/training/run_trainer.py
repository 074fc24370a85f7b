"""A tiny shop, and trainings in processes of their own.

`python run_trainer.py` reads a line of specifications after the other, starts them one by one, and answers with their
exit codes; each is forked, so that the imports are paid once, and may be killed without taking the others along.
"""

import gc
import json
import os
import signal
import socket
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments

import mmm4rec_hf
from mmm4rec_hf.modeling.loss_mmm4rec import gather_targets
from mmm4rec_hf.training import checkpoints, pretraining
from mmm4rec_hf.training.recipes import build
from mmm4rec_hf.training.trainer import MMM4RecTrainer

TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "head_dim": 4,
    "n_groups": 4,
    "state_size": 4,
    "max_sequence_length": 6,
    "text_feature_size": 6,
    "image_feature_size": 5,
}
NO_DROPOUT = {"hidden_dropout": 0.0, "embedding_dropout": 0.0, "time_dropout": 0.0}


def make_sequences(users: int = 20) -> Any:
    """Sequences of 25 items; every third event is of item 1, the others are of any."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", "1" if time % 3 == 0 else str(rng.integers(2, 26)), 1_000_000 + 1000 * time)
        for user in range(users)
        for time in range(rng.integers(4, 12))
    ]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return mmm4rec_hf.prepare_sequences(mmm4rec_hf.load_interactions(log), k_core=1)


def make_model(item_ids: list[str], **changes: Any) -> Any:
    """A model whose weights are large enough for a few steps to move the ranking."""
    torch.manual_seed(1)
    model = mmm4rec_hf.MMM4RecForSequentialRecommendation(mmm4rec_hf.MMM4RecConfig(**(TINY | changes)))
    text, image = torch.randn(len(item_ids), 6), torch.randn(len(item_ids), 5)
    model.set_items(SimpleNamespace(item_ids=item_ids, text_features=text, image_features=image))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def make_arguments(output_dir: Any, **changes: Any) -> TrainingArguments:
    options = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "learning_rate": 3e-3}
    return TrainingArguments(output_dir=str(output_dir), **(options | changes))


class Kill(TrainerCallback):
    """Ends the process the hard way: when a step would begin, while its checkpoint is written, or once it is saved."""

    def __init__(self, trainer: MMM4RecTrainer, step: int, when: str) -> None:
        self.step, self.when = step, when
        save = trainer._save_rng_state

        def save_or_die(output_dir: str) -> None:
            self.die("saving", trainer.state)
            save(output_dir)

        trainer._save_rng_state = save_or_die

    def die(self, now: str, state: Any) -> None:
        if now == self.when and state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.die("begin", state)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.die("saved", state)


def gather(spec: dict[str, Any]) -> None:
    """Gathers targets, each process as many as `spec["gather"]` says, and takes gradients by known factors."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    rows = torch.arange(spec["gather"][rank])
    own = (100.0 * rank + rows).unsqueeze(1).requires_grad_()
    embeds, labels, offset = gather_targets(own, 10 + 10 * rank + rows)
    factors = torch.arange(1.0, len(embeds) + 1) * 10**rank
    (embeds * factors.unsqueeze(1)).sum().backward()
    if rank == 0:
        torch.save({"labels": labels, "embeds": embeds.detach(), "offset": offset, "grad": own.grad}, spec["result"])


def pretrain(spec: dict[str, Any]) -> None:
    """The pretraining of a recipe, which is killed when it calls a function for the n-th time, where it is told so."""
    name, left = spec.get("kill_at", (None, 0))
    owner: Any = pretraining.Pretraining if name == "_step" else checkpoints

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    if name is not None:
        original = getattr(owner, name)
        setattr(owner, name, dying)
    pretraining.pretrain(build(pretraining.PretrainRecipe, spec["pretrain"], "test"))


def run(spec: dict[str, Any]) -> None:
    """One process of a run; the first leaves what it ended with in `spec["result"]`."""
    torch.set_num_threads(1)
    if "gather" in spec:
        return gather(spec)
    if "pretrain" in spec:
        return pretrain(spec)
    sequences = make_sequences(spec.get("users", 20))
    model = make_model(sequences.item_ids, **spec.get("model", {}))
    callbacks = [EarlyStoppingCallback(spec["patience"])] if "patience" in spec else []
    train_rows = spec.get("train_rows", len(sequences["train"]))
    trainer = MMM4RecTrainer(
        model=model,
        args=make_arguments(spec["output_dir"], **spec.get("training", {})),
        train_dataset=sequences["train"].select(range(train_rows)),
        eval_dataset=sequences["validation"],
        callbacks=callbacks,
        **spec.get("trainer", {}),
    )
    sent: list[int] = []
    if spec.get("count_sent"):
        # What DistributedDataParallel sends of buffers, when it is made and at each step.
        send = torch.distributed._broadcast_coalesced

        def count(group: Any, tensors: Any, *args: Any, **kwargs: Any) -> None:
            sent.append(sum(tensor.numel() for tensor in tensors))
            send(group, tensors, *args, **kwargs)

        torch.distributed._broadcast_coalesced = count
    if "kill_at" in spec:
        trainer.add_callback(Kill(trainer, spec["kill_at"], spec["when"]))
    if spec.get("train", True):
        trainer.train(resume_from_checkpoint=spec.get("resume", False))
    result: dict[str, Any] = {"weights": model.state_dict(), "state": vars(trainer.state).copy()}
    result["sent"] = sent
    if spec.get("train", True):
        result |= {"torch": torch.get_rng_state(), "numpy": np.random.get_state()[1]}
        optimizer = trainer.optimizer
        result["optimizer"] = None if optimizer is None else optimizer.state_dict()
    if "evaluate" in spec:
        result["metrics"] = trainer.evaluate(sequences["test"].select(range(spec["evaluate"])))
    if trainer.is_world_process_zero():
        torch.save(result, spec["result"])


def start(spec: dict[str, Any]) -> list[int]:
    """Runs one specification in as many processes as it says; their exit codes, negative for a signal."""
    processes = spec.get("processes", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            signal.alarm(600)
            log = os.open(f"{spec['log']}-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if processes > 1:
                os.environ |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(processes),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
            code = 1
            try:
                run(spec)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    gc.freeze()  # the trainer collects garbage several times a training
    for line in sys.stdin:
        print(json.dumps([start(spec) for spec in json.loads(line)]), flush=True)
