"""The farm counts what PyTorch's flop counter counts, in every family, and what an exact method may leave out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification

from tasks.first_token import keep_first_token
from tasks.operations import Architecture, Work, architecture_of, count_work

BATCH, LENGTH, LABELS = 2, 12, 3
SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
DEBERTA = {**SIZES, "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
MODERN_TOKENS = {f"{name}_token_id": 1 for name in ("pad", "bos", "eos", "cls", "sep")}
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "distilbert": ("distilbert", {"vocab_size": 50, "dim": 24, "hidden_dim": 40, "n_layers": 3, "n_heads": 4}),
    "bert": ("bert", SIZES),
    "roberta": ("roberta", SIZES),
    "xlm-roberta": ("xlm-roberta", SIZES),
    "camembert": ("camembert", SIZES),
    "mpnet": ("mpnet", SIZES),
    "electra, narrow embeddings": ("electra", {**SIZES, "embedding_size": 16}),
    "electra, wide embeddings": ("electra", {**SIZES, "embedding_size": 24}),
    "albert": ("albert", {**SIZES, "embedding_size": 16}),
    "albert, groups": ("albert", {**SIZES, "embedding_size": 16, "num_hidden_groups": 3, "inner_group_num": 2}),
    "deberta-v2 without positions": ("deberta-v2", SIZES),
    "deberta-v3": ("deberta-v2", {**DEBERTA, "share_att_key": True, "pos_att_type": ["p2c", "c2p"]}),
    "deberta-v2, own projections": ("deberta-v2", {**DEBERTA, "position_buckets": -1, "pos_att_type": "c2p|p2c"}),
    "deberta-v2, one direction": ("deberta-v2", {**DEBERTA, "pos_att_type": ["c2p"]}),
    "deberta-v2 xlarge": ("deberta-v2", {**DEBERTA, "pos_att_type": ["p2c"], "conv_kernel_size": 3}),
    "modernbert": ("modernbert", {**SIZES, **MODERN_TOKENS, "local_attention": 2 * LENGTH}),
}


def made(family: str, **changes: Any) -> tuple[Any, Architecture]:
    """A random model, and what is read from its configuration as it would be saved."""
    kind, settings = FAMILIES[family]
    config = AutoConfig.for_model(kind, **{**settings, "num_labels": LABELS, **changes})
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    model.requires_grad_(False)  # the counter looks for gradients of weights that are given to modules, as in DeBERTa
    found = architecture_of(json.loads(config.to_json_string()), LABELS)
    assert found is not None
    return model, found


def inputs(length: int = LENGTH) -> dict[str, torch.Tensor]:
    shape = (BATCH, length)
    return {"input_ids": torch.ones(shape, dtype=torch.long) * 5, "attention_mask": torch.ones(shape, dtype=torch.long)}


def counted_by_torch(model: Any, length: int = LENGTH) -> int:
    """Operations of the model's products; rotary tables, which torch makes by a product, are the same in every call."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model(**inputs(length))
    by_module = counter.get_flop_counts()
    tables = sum(sum(counts.values()) for name, counts in by_module.items() if name.endswith("rotary_emb"))
    return counter.get_total_flops() - tables


def total(work: Work) -> int:
    return work.operations + work.fixed


@pytest.mark.parametrize("family", FAMILIES)
def test_the_count_is_torchs(family: str) -> None:
    model, architecture = made(family)
    assert total(count_work(architecture, BATCH, LENGTH)) == counted_by_torch(model)


@pytest.mark.parametrize("family", ["distilbert", "bert", "roberta", "electra, narrow embeddings", "albert", "mpnet"])
def test_a_pruned_graph_makes_the_operations_counted_for_it(family: str) -> None:
    model, architecture = made(family)
    exported = torch.export.export(model, (), inputs()).module()
    assert keep_first_token(exported) > 0
    pruned = count_work(architecture, BATCH, LENGTH, pruned=True)
    assert total(pruned) == counted_by_torch(exported) < total(count_work(architecture, BATCH, LENGTH))


@pytest.mark.parametrize("family", ["modernbert"])
def test_a_rewrite_that_stops_early_makes_more_than_it_must(family: str) -> None:
    model, architecture = made(family)
    exported = torch.export.export(model, (), inputs()).module()
    assert keep_first_token(exported) > 0
    must = count_work(architecture, BATCH, LENGTH, pruned=True)
    assert total(must) < counted_by_torch(exported) < total(count_work(architecture, BATCH, LENGTH))


def test_a_model_that_reads_every_token_is_not_pruned() -> None:
    _, architecture = made("modernbert", classifier_pooling="mean")
    assert count_work(architecture, 1, 8, pruned=True) == count_work(architecture, 1, 8)


@pytest.mark.parametrize("length", [1, 4, 5, 30])
def test_only_pairs_inside_a_window_are_needed(length: int) -> None:
    _, architecture = made("modernbert", local_attention=8, layer_types=["full_attention"] + 2 * ["sliding_attention"])
    inside = sum(abs(query - key) <= 4 for query in range(length) for key in range(length))
    assert count_work(architecture, 1, length).attention == 2 * 2 * 24 * (length**2 + 2 * inside)


def test_products_of_weights_alone_are_no_work_of_a_call() -> None:
    _, architecture = made("deberta-v3")
    assert count_work(architecture, 1, LENGTH).fixed == count_work(architecture, 8, LENGTH).fixed > 0


def test_the_numbers_read_are_the_models_matrices() -> None:
    """Of every family but DeBERTa, whose positions are multiplied with weights beforehand."""
    for family, (kind, _) in FAMILIES.items():
        if kind != "deberta-v2":
            model, architecture = made(family)
            embeddings = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
            matrices = [each for each in model.parameters() if each.dim() == 2]
            weights = sum(each.numel() for each in matrices if not any(each is table for table in embeddings))
            rows = 50 * architecture.embedding
            assert count_work(architecture, 10, 40).numbers_read == weights + rows, family


def test_operations_go_to_the_precisions_they_run_in() -> None:
    work = Work(linear=100, attention=10, fixed=5, numbers_read=1)
    assert work.by_precision({"linear": {"int8": 1.0}, "attention": {"fp32": 1.0}}) == {"int8": 100, "fp32": 10}
    assert work.by_precision({"linear": {"bf16": 1.0}, "attention": {"bf16": 1.0}}) == {"bf16": 110}
    split = work.by_precision({"linear": {"int8": 1.0}, "attention": {"int8": 0.5, "fp32": 0.5}})
    assert split == {"int8": 105, "fp32": 5}


@pytest.mark.parametrize("config", [{}, {"model_type": "bert", "hidden_size": 24}, {"model_type": "distilbert"}])
def test_a_configuration_that_says_too_little_is_not_guessed_at(config: dict[str, Any]) -> None:
    assert architecture_of(config, LABELS) is None


def test_distilbert_base_needs_the_operations_that_its_size_says() -> None:
    """6 layers of 7.1 million weights: 5.5 GFLOP for 64 tokens, 48 for 512."""
    config = {"model_type": "distilbert", "n_layers": 6, "dim": 768, "hidden_dim": 3072, "vocab_size": 30522}
    architecture = architecture_of(config, 2)
    assert architecture is not None
    work = {length: count_work(architecture, 1, length) for length in (64, 512)}
    assert work[64].operations / 1e9 == pytest.approx(5.5, abs=0.05)
    assert work[512].operations / 1e9 == pytest.approx(48.3, abs=0.5)
