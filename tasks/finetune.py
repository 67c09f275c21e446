"""Fine-tuning of a sequence classifier on short texts, on a CPU, in a minute or two."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.instruction_sets import BF16_X86, cpu_flags

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

TokenIds = Sequence[int]


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Settings of one fine-tuning; everything that decides its result, but for the machine's rounding."""

    epochs: int = 2
    batch_size: int = 32
    peak_learning_rate: float = 2e-4
    weight_decay: float = 0.01
    max_tokens: int = 128
    seed: int = 0


def fine_tune(
    model: Module,
    texts: Sequence[TokenIds],
    labels: Sequence[int],
    settings: FineTuning,
    report: Callable[[int, int, float], None],
) -> None:
    """Train all weights of `model` in place, with AdamW and a one-cycle learning rate.

    `texts` holds the token ids of each text, special tokens included. `report(step, steps, loss)` is called after
    each step. bf16 is used only where the CPU has units for it; elsewhere it would be emulated, and slower.
    """
    import torch

    torch.manual_seed(settings.seed)
    batches = _batches(texts, settings)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.peak_learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.peak_learning_rate, total_steps=len(batches)
    )
    model.train()
    for step, batch in enumerate(batches, start=1):
        ids, mask = _padded([texts[index][: settings.max_tokens] for index in batch])
        target = torch.tensor([labels[index] for index in batch])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(BF16_X86 & cpu_flags())):
            loss = torch.nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step, len(batches), loss.item())
    model.eval()


def logits(model: Module, texts: Sequence[TokenIds], batch_size: int = 32) -> Tensor:
    """Logits [texts, labels] in fp32, in the order of `texts`."""
    import torch

    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            ids, mask = _padded([texts[index] for index in order[start : start + batch_size]])
            parts.append(model(input_ids=ids, attention_mask=mask).logits.float())
    result = torch.empty(len(texts), parts[0].shape[1])
    result[torch.tensor(order)] = torch.cat(parts)
    return result


def _batches(texts: Sequence[TokenIds], settings: FineTuning) -> list[list[int]]:
    """Batches of text indices over all epochs, in random order, each of texts of similar length.

    Padding a random batch to its longest text would nearly double the work.
    """
    generator = random.Random(settings.seed)
    batches = []
    for _ in range(settings.epochs):
        order = list(range(len(texts)))
        generator.shuffle(order)
        order.sort(key=lambda index: len(texts[index]))
        epoch = [order[start : start + settings.batch_size] for start in range(0, len(order), settings.batch_size)]
        generator.shuffle(epoch)
        batches += epoch
    return batches


def _padded(texts: Sequence[TokenIds]) -> tuple[Tensor, Tensor]:
    import torch

    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    lengths = torch.tensor([[len(text)] for text in texts])
    return ids, (torch.arange(ids.shape[1]) < lengths).long()
