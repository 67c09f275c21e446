"""int8 through PyTorch's current path: quantized on the exported graph (PT2E) and compiled by AOTInductor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar

from farm.errors import ProofFailedError
from farm.records import ModelInfo, Workload
from tasks.calibration import CalibrationOptions, calibration_inputs, texts_sha256
from tasks.cpu_products import Product
from tasks.inductor import AotFp32, PackageCallable
from tasks.instruction_sets import byte_sums_may_overflow
from tasks.method import library_versions
from tasks.options import NoOptions

COPIED = "{copies} weights that layers share are copied, as Inductor runs int8 only where a weight is read once"


class QuantizedPackage(PackageCallable):
    """A package whose linear layers must all run on int8."""

    def check(self, evidence: Mapping[str, Any], ran: Sequence[Product]) -> None:
        """Raise ProofFailedError where fewer products ran on int8 than the graph has linear layers."""
        layers, marked = evidence["linear_layers"], evidence["quantized_layers"]
        if marked != layers:
            raise ProofFailedError(f"{marked} of {layers} linear layers were quantized")
        called = sum(count for name, count in evidence["library_calls"].items() if "qlinear" in name)
        quantized = sum(product.factors[1:] == ("s8",) for product in ran)
        if called < layers or quantized != called:
            raise ProofFailedError(
                f"of {layers} linear layers {called} call oneDNN's int8 products, of which {quantized} ran"
            )


class Pt2eInt8(AotFp32):
    """Static quantization: ranges of activations from calibration texts, weights per output channel."""

    id: ClassVar[str] = "pytorch-int8-pt2e"
    about: ClassVar[str] = "PyTorch PT2E static int8 (torchao), compiled by AOTInductor"
    precision: ClassVar[str] = "int8"
    exact: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers", "torchao")
    Options: ClassVar[type] = CalibrationOptions
    proving: ClassVar[type[PackageCallable]] = QuantizedPackage
    dynamic: ClassVar[bool] = False

    def instruction_sets(self) -> set[str]:
        """Inductor's quantizer for x86 packs weights for oneDNN's int8 kernels, which begin with AVX2."""
        return {"avx2"}

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Ranges of activations come from the calibration texts, and are narrower where sums of bytes may overflow."""
        ranges = {} if self.dynamic else {"calibration_sha256": texts_sha256(self._calibration(workload).calibration)}
        return {
            **super().depends_on(workload),
            **library_versions("torchao"),
            **ranges,
            "reduce_range": byte_sums_may_overflow(),
        }

    def export(self, model: ModelInfo, workload: Workload) -> Any:
        """With open axes, as calibration texts have lengths of their own; ranges are then those of every length."""
        from tasks.exported import export_open_module

        del workload
        return export_open_module(model, pruned=self.prunes_last_layer)

    def rewrite(self, module: Any, model: ModelInfo, workload: Workload) -> tuple[Any, dict[str, Any]]:
        """Put quantize and dequantize operators around the linear layers, with ranges from the calibration texts."""
        import torch
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        layers, fixed = linear_layers(module)
        for node in fixed:  # done already, as the quantizer sees it
            node.meta["quantization_annotation"] = QuantizationAnnotation(_annotated=True)
        copies = separate_shared_weights(module, layers)
        config = x86.get_default_x86_inductor_quantization_config(
            is_dynamic=self.dynamic, reduce_range=byte_sums_may_overflow()
        )
        # Linear layers alone: a global setting observes elementwise products and concatenations too, and fails where
        # these are of integers, as in the positions of MPNet and DeBERTa.
        quantizer = x86.X86InductorQuantizer().set_module_type_qconfig(torch.nn.Linear, config)
        observed = prepare_pt2e(module, quantizer)
        for tensors in self.observed_inputs(model, workload):
            observed(**tensors)
        quantized = convert_pt2e(observed)
        marked = _count(quantized, "quantized_decomposed.dequantize_per_channel")
        remarks = [COPIED.format(copies=copies)] if copies else []
        return quantized, {"linear_layers": len(layers), "quantized_layers": marked, "remarks": remarks}

    def observed_inputs(self, model: ModelInfo, workload: Workload) -> Iterable[Mapping[str, Any]]:
        """The tensors whose activations are observed."""
        from tasks.exported import as_tensors

        return map(as_tensors, calibration_inputs(model, self._calibration(workload)))

    def _calibration(self, workload: Workload) -> CalibrationOptions:
        return CalibrationOptions(**workload.options)

    def settings(self, workload: Workload) -> dict[str, Any]:
        """Frozen always: only constant weights can be packed for int8 kernels."""
        del workload
        return {"freezing": True}


class Pt2eInt8Dynamic(Pt2eInt8):
    """Dynamic quantization: the range of activations is taken anew in every call."""

    id: ClassVar[str] = "pytorch-int8-pt2e-dynamic"
    about: ClassVar[str] = "PyTorch PT2E dynamic int8 (torchao), compiled by AOTInductor"
    Options: ClassVar[type] = NoOptions
    dynamic: ClassVar[bool] = True

    def observed_inputs(self, model: ModelInfo, workload: Workload) -> Iterable[Mapping[str, Any]]:
        """Any one: weights alone are observed."""
        from tasks.exported import example_inputs

        return [example_inputs(model, workload)]


class Pt2eInt8Pruned(Pt2eInt8):
    """Static quantization with the last layer computed for the first token alone."""

    id: ClassVar[str] = "pytorch-int8-pt2e-pruned"
    about: ClassVar[str] = "PyTorch PT2E static int8, last layer for the first token only (exact before quantization)"
    prunes_last_layer: ClassVar[bool] = True


def linear_layers(module: Any) -> tuple[list[Any], list[Any]]:
    """Nodes of an exported module's linear layers that a call's inputs reach, and of those that give a constant.

    The latter (DeBERTa's relative positions) freezing computes once, in FP32, for the one shape that is compiled.
    """
    reached: set[Any] = set()
    layers: tuple[list[Any], list[Any]] = [], []
    for node in module.graph.nodes:
        shape_alone = str(node.target).startswith("aten.sym_size")
        if node.op == "placeholder" or (reached & set(node.all_input_nodes) and not shape_alone):
            reached.add(node)
        if str(node.target).startswith("aten.linear"):
            layers[0 if node in reached else 1].append(node)
    return layers


def separate_shared_weights(module: Any, layers: Iterable[Any]) -> int:
    """Give each of these linear layers of an exported module a weight of its own; return how many were copied.

    ALBERT's share theirs. Inductor runs a layer on int8 where its weight is read once, and leaves the others in FP32.
    """
    import torch

    seen, copies = set(), 0
    for node in layers:
        shared = node.args[1]
        weight = attrgetter(shared.target)(module)
        if weight.data_ptr() in seen:
            name = f"own_weight_{copies}"
            module.register_parameter(name, torch.nn.Parameter(weight.detach().clone(), requires_grad=False))
            with module.graph.inserting_before(node):
                own = module.graph.get_attr(name)
            own.meta = dict(shared.meta)
            node.replace_input_with(shared, own)
            copies += 1
        seen.add(weight.data_ptr())
    module.recompile()
    return copies


def _count(module: Any, operator: str) -> int:
    """How often an operator stands in an exported module's graph."""
    return sum(str(node.target).startswith(operator) for node in module.graph.nodes if node.op == "call_function")
