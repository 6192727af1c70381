"""Measures ONNX Runtime on one thread, the peer of `benches/policy.rs`, which runs this script and describes the network.

    pip install numpy onnx onnxruntime
    cargo bench -p phalanx-benches --bench policy -- --peer python3
"""

import json
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

given = json.load(sys.stdin)
tensors = {name: np.array(values, np.float32).reshape(shape) for name, (shape, values) in given["tensors"].items()}
layers = sorted({int(name.split(".")[1]) for name in tensors})
initializers, nodes, value = [], [], "observation"


def constant(name):
    array = tensors[name]
    if array.shape[0] == 1:
        array = array[0]
    initializers.append(numpy_helper.from_array(array, name))
    return name


for layer in layers:
    name = f"actor.{layer}"
    if f"{name}.norm.weight" in tensors:
        inputs = [value, constant(f"{name}.norm.weight"), constant(f"{name}.norm.bias")]
        nodes.append(helper.make_node("LayerNormalization", inputs, [f"{name}.normed"], epsilon=1e-5))
        value = f"{name}.normed"
    nodes.append(helper.make_node("Gemm", [value, constant(f"{name}.weight"), constant(f"{name}.bias")], [f"{name}.sum"]))
    value = f"{name}.sum"
    if layer != layers[-1]:
        nodes.append(helper.make_node("Relu", [value], [f"{name}.out"]))
        value = f"{name}.out"
nodes.append(helper.make_node("Identity", [value], ["logits"]))
features = len(given["observations"]) // 256
graph = helper.make_graph(
    nodes,
    "policy",
    [helper.make_tensor_value_info("observation", TensorProto.FLOAT, [1, features])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, tensors[f"actor.{layers[-1]}.weight"].shape[1]])],
    initializers,
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
observations = np.array(given["observations"], np.float32).reshape(256, 1, features)
feeds = [{"observation": observation} for observation in observations]

logits = np.concatenate([session.run(["logits"], feed)[0] for feed in feeds]).astype(np.float64)
powers = np.exp(logits - logits.max(axis=1, keepdims=True))
print(*(powers / powers.sum(axis=1, keepdims=True)).ravel())

for index in range(1000):
    session.run(["logits"], feeds[index % 256])[0].argmax()
interval, latencies = given["interval_ns"], []
now = time.perf_counter_ns
start = now()
for index in range(given["decisions"]):
    due = start + index * interval
    while now() < due:
        pass
    session.run(["logits"], feeds[index % 256])[0].argmax()
    latencies.append(now() - due)
print(*latencies)
