"""A suite is checked before anything runs, and every mistake is one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farm.errors import RequestError
from farm.suite import Suite, built_in_suites, load_suite, parse_suite, request_sha256


def _refusal(**keys: Any) -> str:
    with pytest.raises(RequestError) as raised:
        parse_suite({"methods": ["pytorch"], **keys}, "mine.yaml")
    message = str(raised.value)
    assert message.startswith("mine.yaml: ")
    assert "\n" not in message
    return message


def _file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def _refusal_of_file(source: str) -> str:
    with pytest.raises(RequestError) as raised:
        load_suite(source)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_unknown_method_is_named_with_its_place_and_the_nearest_known_one() -> None:
    message = _refusal(methods=["pytorch", "onnx-runtime"])
    assert "methods[1]" in message
    assert "unknown method 'onnx-runtime'. Did you mean 'onnxruntime'?" in message
    assert "farm methods" in message


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    assert "unknown key 'lenghts'. Did you mean 'lengths'?" in _refusal(lenghts=[64])
    assert "unknown key 'accuracy.datset'. Did you mean 'dataset'?" in _refusal(accuracy={"datset": "demo"})
    assert "unknown key 'limits.lod_s'. Did you mean 'load_s'?" in _refusal(limits={"lod_s": 3})
    assert "unknown key 'methods[0].zeal'. Known keys: method, name, options" in _refusal(
        methods=[{"method": "control-null", "zeal": 1}]
    )


def test_an_unknown_key_inside_another_is_named_with_its_place() -> None:
    assert "limits.load" in _refusal(limits={"load": 3})


def test_an_unknown_option_is_named_with_those_the_method_knows() -> None:
    message = _refusal(methods=["pytorch", {"method": "onnxruntime", "options": {"spining": False}}])
    assert "'onnxruntime' has no option 'spining' (it knows spinning, arena, dynamic_block_base, cuda_graph)" in message


def test_an_option_of_the_wrong_type_is_named() -> None:
    message = _refusal(methods=[{"method": "control-work", "options": {"units": "many"}}])
    assert "'control-work': option units: " in message


@pytest.mark.parametrize(
    ("method", "option", "value", "reason"),
    [
        ("onnxruntime-fp32", "spinning", "false", "should be a valid boolean"),
        ("onnxruntime-fp32", "spinning", 0, "should be a valid boolean"),
        ("onnxruntime-fp32", "dynamic_block_base", -4, "greater than or equal to 0"),
        ("openvino-int8", "samples", "64", "should be a valid integer"),
        ("openvino-int8", "samples", 64.0, "should be a valid integer"),
        ("onnxruntime-int8-static", "samples", 0, "greater than 0"),
        ("pytorch-int8-pt2e", "samples", -5, "greater than 0"),
    ],
)
def test_an_option_is_taken_as_it_stands_or_refused(method: str, option: str, value: Any, reason: str) -> None:
    message = _refusal(methods=[{"method": method, "options": {option: value}}])
    assert f"'{method}': option {option}: " in message
    assert reason in message


def test_an_option_that_the_method_itself_refuses_is_named() -> None:
    message = _refusal(methods=[{"method": "control-crash", "options": {"how": "loudly"}}])
    assert "'control-crash'" in message
    assert "how is 'raise', 'exit' or 'segfault'" in message


def test_a_method_without_options_says_so() -> None:
    message = _refusal(methods=[{"method": "torchscript", "options": {"level": 3}}])
    assert "has no option 'level' (it has none)" in message


def test_the_same_method_twice_is_refused_with_the_remedy() -> None:
    message = _refusal(methods=["pytorch", "pytorch"])
    assert "'pytorch' stands there twice" in message
    assert "`name:`" in message


def test_the_same_method_twice_under_two_names_is_accepted() -> None:
    again = {"method": "pytorch", "name": "once more"}
    assert [choice.name for choice in parse_suite({"methods": ["pytorch", again]}).methods] == ["pytorch", "once more"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("threads", [0], "threads[0]: give 'auto' or a positive whole number"),
        ("threads", ["many"], "threads[0]: give 'auto' or a positive whole number"),
        ("threads", [1, 1], "threads: [1, 1] names something twice"),
        ("lengths", ["long"], "lengths[0]: "),
        ("lengths", [3], "lengths[0]: Input should be greater than or equal to 4"),
        ("lengths", [], "lengths: List should have at least 1 item"),
        ("lengths", [64, 64], "lengths: [64, 64] names something twice"),
        ("lengths", 64, "lengths: "),
        ("batch_sizes", [0], "batch_sizes[0]: "),
        ("devices", ["tpu"], "devices[0]: Input should be 'auto', 'cpu' or 'cuda'"),
        ("effort", "heroic", "effort: Input should be 'quick', 'standard' or 'rigorous'"),
        ("order", "sorted", "order: Input should be 'interleaved' or 'blocked'"),
        ("budget_s", -1, "budget_s: Input should be greater than 0"),
        ("limits", {"call_s": 0}, "limits.call_s: "),
        ("methods", [], "methods: List should have at least 1 item"),
        ("baseline", "pytorh", "'pytorh' is not one of the methods (pytorch). Did you mean 'pytorch'?"),
    ],
)
def test_a_bad_value_is_named_by_its_key(key: str, value: Any, expected: str) -> None:
    assert expected in _refusal(**{key: value})


def test_two_mistakes_are_two_lines() -> None:
    with pytest.raises(RequestError) as raised:
        parse_suite({"methods": ["pytorch"], "effort": "heroic", "lenghts": [64]}, "mine.yaml")
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("mine.yaml: ") for line in lines)


def test_a_missing_file_is_named_with_the_built_in_suites() -> None:
    message = _refusal_of_file("no/such.yaml")
    assert message.startswith("no/such.yaml: No such file or directory. Give a YAML file or a built-in suite (")
    assert message.endswith("(cpu-full, founding, gpu, gpu-full)")


def test_broken_yaml_is_one_line_with_its_place(tmp_path: Path) -> None:
    message = _refusal_of_file(_file(tmp_path, "methods: [pytorch\nlengths: [64]\n"))
    assert message.startswith("mine.yaml: is not valid YAML: ")
    assert "line 2" in message


@pytest.mark.parametrize("text", ["- pytorch\n- torchscript\n", "pytorch", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert _refusal_of_file(_file(tmp_path, text)).startswith("mine.yaml: a suite is a mapping of keys")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert "is not a text file" in _refusal_of_file(str(path))


def test_a_suite_without_methods_is_refused(tmp_path: Path) -> None:
    assert "methods" in _refusal_of_file(_file(tmp_path, "lengths: [64]\n"))


def test_the_first_method_is_the_baseline_unless_one_is_named() -> None:
    assert parse_suite({"methods": ["torchscript", "pytorch"]}).baseline_choice.method == "torchscript"
    named = parse_suite({"methods": ["torchscript", "pytorch"], "baseline": "pytorch"})
    assert named.baseline_choice.method == "pytorch"


def test_overrides_replace_keys_and_reach_into_them(tmp_path: Path) -> None:
    source = _file(tmp_path, "methods: [pytorch]\nlengths: [64]\nlimits: {load_s: 5, prepare_s: 6}\n")
    suite = load_suite(source, {"lengths": [128], "limits.load_s": 7, "accuracy.max_drop_points": None})
    assert suite.lengths == (128,)
    assert (suite.limits.load_s, suite.limits.prepare_s) == (7, 6)
    assert suite.accuracy is not None
    assert suite.accuracy.max_drop_points is None


def test_an_override_of_an_unknown_key_is_refused() -> None:
    with pytest.raises(RequestError, match=r"unknown key 'budget'. Did you mean 'budget_s'"):
        load_suite(None, {"budget": 3})


def test_overridden_methods_keep_the_suites_baseline() -> None:
    suite = load_suite(None, {"methods": ["quantized"]})
    assert [choice.name for choice in suite.methods] == ["pytorch", "quantized"]


def test_overridden_methods_are_the_suites_own_rows_with_their_options(tmp_path: Path) -> None:
    source = _file(
        tmp_path, "methods: [control-null, {method: control-work, name: long, options: {units: 9}}, pytorch]\n"
    )
    suite = load_suite(source, {"methods": ["long"]})
    assert [(choice.name, choice.options) for choice in suite.methods] == [("control-null", {}), ("long", {"units": 9})]
    assert suite.baseline == "control-null"


def test_aliases_mean_what_the_founding_experiment_ran_on_each_device() -> None:
    founding = load_suite(None)
    on_cpu = [choice.method_id("cpu") for choice in founding.methods]
    on_gpu = [choice.method_id("cuda") for choice in founding.methods]
    assert on_cpu == ["pytorch-fp32", "torchscript-fp32", "onnxruntime-fp32", "pytorch-int8-dynamic"]
    assert on_gpu == ["pytorch-fp32", "torchscript-fp32", "onnxruntime-fp16", "pytorch-int8-dynamic"]


def test_the_founding_suite_is_the_founding_experiment() -> None:
    suite = load_suite(None)
    assert "founding" in built_in_suites()
    assert suite == load_suite("founding")
    assert (suite.name, suite.model, suite.baseline) == ("founding", "demo", "pytorch")
    assert [choice.name for choice in suite.methods] == ["pytorch", "torchscript", "onnxruntime", "quantized"]
    assert (suite.lengths, suite.batch_sizes) == ((64, 128, 256, 512), (1,))
    assert (suite.devices, suite.threads, suite.inputs) == (("auto",), ("auto",), "full")
    assert (suite.effort, suite.order) == ("quick", "interleaved")
    assert suite.accuracy is not None
    assert (suite.accuracy.dataset, suite.accuracy.max_drop_points) == ("demo", 0.5)


def _request(suite: Suite | None = None, **changes: Any) -> str:
    facts: dict[str, Any] = {"model": "m", "classes": ["a", "b"], "versions": {"torch": "2.11"}, "texts": None}
    facts |= changes
    order = (facts["model"], facts["classes"], facts["versions"], facts["texts"])
    return request_sha256(suite or load_suite(None), *order)


def test_a_request_is_the_same_whatever_the_order_of_hardware_and_libraries() -> None:
    versions = {"torch": "2.11", "ray": "2.60"}
    assert _request(classes=["a", "b"], versions=versions) == _request(
        classes=["b", "a"], versions=dict(reversed(versions.items()))
    )


@pytest.mark.parametrize(
    "change",
    [
        {"suite": load_suite(None, {"lengths": [64]})},
        {"suite": load_suite(None, {"effort": "standard"})},
        {"suite": load_suite(None, {"order": "blocked"})},
        {"model": "n"},
        {"classes": ["a"]},
        {"versions": {"torch": "2.12"}},
        {"texts": "t"},
    ],
)
def test_a_request_changes_with_suite_model_texts_hardware_and_libraries(change: dict[str, Any]) -> None:
    assert _request(**change) != _request()
