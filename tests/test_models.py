"""A model is checked before anything is measured, and every refusal says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import save_model

from farm.errors import RequestError
from farm.records import ModelInfo
from tasks.models import resolve_model
from tasks.progress import SilentProgress

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model that is fine."""
    return save_model(tmp_path / "model")


def _resolve(name: object) -> ModelInfo:
    return resolve_model(str(name), SilentProgress())


def _refusal(name: object) -> str:
    with pytest.raises(RequestError) as raised:
        _resolve(name)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_local_folder_is_described(folder: Path) -> None:
    model = _resolve(folder)
    assert (model.family, model.max_length, model.labels) == ("distilbert", 32, ("LABEL_0", "LABEL_1"))
    assert model.input_names == ("input_ids", "attention_mask")
    assert model.folder == str(folder)
    assert model.weight_bytes == (folder / "model.safetensors").stat().st_size


def test_the_hash_follows_the_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    elsewhere = save_model(tmp_path / "elsewhere")
    before = _resolve(folder).sha256
    assert before == _resolve(elsewhere).sha256
    tokenizer = elsewhere / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("camera", "cinema"))
    assert _resolve(elsewhere).sha256 != before
    assert _resolve(folder).sha256 == before


@pytest.mark.parametrize(
    ("family", "length", "inputs"),
    [
        ("bert", 512, ("input_ids", "attention_mask", "token_type_ids")),
        ("roberta", 510, ("input_ids", "attention_mask")),
        ("xlm-roberta", 510, ("input_ids", "attention_mask")),
        ("mpnet", 510, ("input_ids", "attention_mask")),
        ("deberta-v2", 512, ("input_ids", "attention_mask")),
    ],
)
def test_positions_and_inputs_follow_the_family(
    tmp_path: Path, family: str, length: int, inputs: tuple[str, ...]
) -> None:
    model = _resolve(save_model(tmp_path / family, model_type=family, max_position_embeddings=512, pad_token_id=None))
    assert (model.max_length, model.input_names) == (length, inputs)


def test_positions_are_counted_from_the_padding_token_that_the_model_has(tmp_path: Path) -> None:
    changes = {"model_type": "xlm-roberta", "max_position_embeddings": 512}
    assert _resolve(save_model(tmp_path / "first", **changes, pad_token_id=0)).max_length == 511
    assert _resolve(save_model(tmp_path / "unstated", **changes, pad_token_id=None)).max_length == 510


def test_deberta_with_token_types_takes_them(tmp_path: Path) -> None:
    model = _resolve(save_model(tmp_path / "deberta", model_type="deberta-v2", type_vocab_size=2))
    assert model.input_names == ("input_ids", "attention_mask", "token_type_ids")


def test_a_bert_of_one_token_type_is_given_none(tmp_path: Path) -> None:
    model = _resolve(save_model(tmp_path / "bert", model_type="bert", type_vocab_size=1))
    assert model.input_names == ("input_ids", "attention_mask")


def test_labels_stand_in_the_order_of_their_index(tmp_path: Path) -> None:
    names = {str(index): f"star{index}" for index in reversed(range(11))}
    assert _resolve(save_model(tmp_path / "stars", id2label=names)).labels == tuple(f"star{i}" for i in range(11))


def test_labels_without_names_are_counted(tmp_path: Path) -> None:
    three = _resolve(save_model(tmp_path / "three", id2label=None, num_labels=3))
    assert three.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert _resolve(save_model(tmp_path / "one", id2label={"0": "toxic"})).labels == ("toxic",)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in _refusal(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_is_refused(folder: Path) -> None:
    assert "name the folder" in _refusal(folder / "config.json")


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "save_pretrained" in _refusal(folder)


@pytest.mark.parametrize("content", ["{ broken", "[]"])
def test_an_unreadable_config_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "config.json" in _refusal(folder)


def test_a_folder_without_tokenizer_is_told_how_to_make_one(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')" in _refusal(folder)


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    message = _refusal(folder)
    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message


def test_damaged_weights_are_noticed(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "damaged" in _refusal(folder)


def test_a_model_that_is_no_sequence_classifier_is_refused(tmp_path: Path) -> None:
    assert "DistilBertForMaskedLM" in _refusal(save_model(tmp_path / "mlm", architectures=["DistilBertForMaskedLM"]))


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    custom = save_model(tmp_path / "custom", auto_map={"AutoModelForSequenceClassification": "modeling.Custom"})
    assert "auto_map" in _refusal(custom)


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    assert "distilbert" in _refusal(save_model(tmp_path / "gpt", model_type="gpt2"))


def test_a_config_without_positions_is_refused(tmp_path: Path) -> None:
    assert "max_position_embeddings" in _refusal(save_model(tmp_path / "none", max_position_embeddings=None))


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("Name or service not known\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    message = _refusal("somebody/some-model")
    assert "Name or service not known" in message
    assert "local folder" in message
