"""`bearray plan`: what fits on given GPUs, and what an epoch, a test and a sweep will cost."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Any

from bearray.errors import ConfigError

if TYPE_CHECKING:
    from bearray.config import RunConfig
    from bearray.planning.plan import Plan
    from bearray.planning.work import Work


def plan(
    *,
    model: str = "llama-3.2-3b",
    gpu: str | None = None,
    gpus: int = 1,
    nodes: int = 1,
    gpu_memory: float | None = None,
    gpu_tflops: float | None = None,
    data_dir: str | None = None,
    train_windows: int = 10_000,
    valid_windows: int | None = None,
    test_windows: int = 5_000,
    prompt_tokens: float | None = None,
    longest_prompt_tokens: int | None = None,
    answer_tokens: float | None = None,
    longest_answer_tokens: int | None = None,
    methods: tuple[str, ...] = ("sft", "msl", "bear"),
    search_methods: tuple[str, ...] | None = None,
    trials: int = 20,
    seeds: int = 1,
    epochs: int = 10,
    batch_size: int = 128,
    lora_r: int = 8,
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj"),
    backbone: str = "bigrec",
    num_workers: int | None = None,
    zero_stage: int | None = None,
    micro_batch_size: int | None = None,
    gradient_checkpointing: bool | None = None,
    measured: tuple[str, ...] = (),
    measured_model: str | None = None,
    price: float | None = None,
    json: bool = False,
) -> int:
    """Say which ZeRO stage, micro-batch and gradient checkpointing fit on given GPUs, which settings to pass
    to a sweep, and what an epoch, a test and the sweep will cost in time, GPU hours and money.

    Nothing is started or trained; of a base model at most config and tokenizer are fetched. Memory is
    computed; times are measured ones where --measured gives some, else computed from the model's work and
    stated assumptions, and say which. The exit code is 1 where nothing fits.

    Args:
        model: Base model: a preset, its hub id, a folder, or local:SIZE.
        gpu: Kind of GPU, such as h100, l40s, a100-80gb, rtx-4090.
        gpus: GPUs of a node.
        nodes: Nodes.
        gpu_memory: GB of a GPU's memory; with --gpu-tflops for any GPU.
        gpu_tflops: Its dense bfloat16 rate, by its data sheet.
        data_dir: Prepared data set: its windows and lengths count instead of the paper's.
        train_windows: Training windows of an epoch.
        valid_windows: Validation windows, decoded after each epoch (default: as many as the data has; without
            data 5,000).
        test_windows: Test windows.
        prompt_tokens: Tokens of a prompt, on average.
        longest_prompt_tokens: Tokens of the longest prompt, which decides the memory.
        answer_tokens: Tokens of a title and its end, on average.
        longest_answer_tokens: Tokens of the longest title.
        methods: Objectives of the sweep.
        search_methods: Those of them whose lambda and xi are searched (default: bear, where it is one).
        trials: Trials of each search.
        seeds: Seeds of each method.
        epochs: Epochs of each run.
        batch_size: Windows of an optimiser step.
        lora_r: Rank of the adapter.
        lora_targets: Layers with an adapter.
        backbone: bigrec, llara or allmrec.
        num_workers: GPUs of a run (default: chosen).
        zero_stage: DeepSpeed ZeRO stage (default: chosen).
        micro_batch_size: Windows of a forward pass (default: chosen).
        gradient_checkpointing: Whether activations are computed again (default: chosen).
        measured: Run folders, storages with a benchmark (`bearray bench objectives`), or efficiency.json
            files of this kind of GPU.
        measured_model: The base model that was measured, where its folder was moved.
        price: Of a GPU hour.
        json: Print the plan as JSON: bytes, seconds, hours.
    """
    from bearray.planning.cards import described
    from bearray.planning.plan import Request, make_plan
    from bearray.planning.speeds import read_speeds

    if measured_model is not None and not measured:
        raise ConfigError("--measured-model is of what --measured gives; give that, too")
    changes: dict[str, Any] = {
        "data.path": data_dir or "",
        "data.train_windows": train_windows,
        "data.valid_windows": valid_windows,
        "data.test_windows": test_windows,
        "model.base": model,
        "model.backbone": backbone,
        "model.lora_r": lora_r,
        "model.lora_targets": list(lora_targets),
        "train.epochs": epochs,
        "train.batch_size": batch_size,
    }
    run = _run(changes)
    lengths: dict[str, float | None] = {
        "prompt_tokens": prompt_tokens,
        "longest_prompt": longest_prompt_tokens,
        "answer_tokens": answer_tokens,
        "longest_answer": longest_answer_tokens,
    }
    for name, value in lengths.items():
        if value is not None and not 0 < value < float("inf"):
            option = name.removesuffix("_tokens").replace("_", "-")
            raise ConfigError(f"--{option}-tokens is {value}; it must be above 0")
    device = described(gpu, gpu_memory, gpu_tflops)
    if not device.bf16:
        run = _run({**changes, "model.dtype": "float32"})
    found = make_plan(
        Request(
            run=run,
            methods=methods,
            work=_work(run, {name: value for name, value in lengths.items() if value is not None}),
            device=device,
            gpus=gpus,
            nodes=nodes,
            searched=search_methods,
            trials=trials,
            seeds=seeds,
            speeds=tuple(speed for place in measured for speed in read_speeds(place, measured_model)),
            price=price,
            workers=num_workers,
            zero_stage=zero_stage,
            micro_batch=micro_batch_size,
            checkpointing=gradient_checkpointing,
        )
    )
    if json:
        from bearray.planning.text import as_json

        print(json_format.dumps(as_json(found), indent=2))
    else:
        _print(found)
    return int(found.chosen is None)


def _run(changes: dict[str, Any]) -> RunConfig:
    from bearray.config import RunConfig, override

    return override(RunConfig(), changes)


def _work(run: RunConfig, lengths: dict[str, Any]) -> Work:
    """The data's, with what was given on the command line in its place."""
    from dataclasses import replace

    from bearray.planning.work import Work

    data = run.data
    if data.path:
        from bearray.planning.lengths import work_of

        work = work_of(run)
    else:
        assert data.train_windows is not None and data.test_windows is not None
        work = Work(
            train_windows=data.train_windows,
            valid_windows=data.valid_windows or 5_000,
            test_windows=data.test_windows,
        )
    if not lengths:
        return work
    mean, longest = lengths.get("prompt_tokens"), lengths.get("longest_prompt")
    changes = dict(lengths)
    if mean is not None and longest is None:  # as much longer than the mean as there
        changes["longest_prompt"] = round(mean * work.longest_prompt / work.prompt_tokens)
    if mean is None and longest is not None:
        changes["prompt_tokens"] = min(work.prompt_tokens, longest)
    if "answer_tokens" in changes and "longest_answer" not in changes:
        ratio = work.longest_answer / work.answer_tokens
        changes["longest_answer"] = max(1, round(changes["answer_tokens"] * ratio))
    if "answer_tokens" not in changes and "longest_answer" in changes:
        changes["answer_tokens"] = min(work.answer_tokens, changes["longest_answer"])
    shown = ", ".join(sorted(name.replace("_", " ") for name in lengths))
    changes["shared_tokens"] = min(work.shared_tokens, changes.get("prompt_tokens", work.prompt_tokens))
    return replace(work, **changes, source=f"{work.source}; {shown} as given")


def _print(found: Plan) -> None:
    from rich.table import Table
    from rich.text import Text

    from bearray.planning import text
    from bearray.terminal import terminal

    console = terminal(soft_wrap=True)
    # A log has no width, and numbers are not to be broken over lines.
    wide = terminal(width=max(console.width, 180))
    console.print(Text(text.headline(found), style="bold"))
    tables = [text.fit_table(found)]
    if found.chosen is not None:
        tables.append(text.cost_table(found))
    for title, header, rows in tables:
        console.print()
        console.print(Text(title, style="bold"))
        table = Table(box=None, pad_edge=False)
        for i, name in enumerate(header):
            last = i == len(header) - 1
            table.add_column(Text(name), justify="left" if i == 0 or last else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        wide.print(table)
    console.print()
    if found.chosen is not None:
        for line in text.sum_up(found):
            console.print(Text(line))
        console.print(Text(f"Pass to the sweep: {text.flags(found)}", style="bold"))
    for line in text.helps(found):
        console.print(Text(line, style="yellow"))
    console.print()
    for line in text.notes(found):
        console.print(Text(line, style="dim"))
