//! Nodes, tensors, inputs and outputs of an ONNX file.

use std::collections::HashSet;

use onnx_rs::ast::{
    Attribute, AttributeType, DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId,
    StringStringEntry, TensorProto, TensorShape, TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue,
    ValueInfo,
};

use crate::{Error, Result};

/// Version of the operators: the first with LayerNormalization.
pub(super) const OPSET: i64 = 17;

/// Version of the file format that came with these operators.
const IR_VERSION: i64 = 8;

/// A dimension that a caller chooses.
pub(super) const BATCH: i64 = -1;

/// Most bytes of a file: a limit of protobuf.
const MOST_BYTES: usize = i32::MAX as usize;

/// The parts of a graph. Names of tensors are those of the nodes that compute them.
#[derive(Default)]
pub(super) struct Builder {
    nodes: Vec<Operation>,
    constants: Vec<Constant>,
    inputs: Vec<Place>,
    outputs: Vec<Place>,
    names: HashSet<String>,
}

struct Operation {
    operator: OpType<'static>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: Vec<(&'static str, i64)>,
}

struct Constant {
    name: String,
    dimensions: Vec<i64>,
    data_type: DataType,
    bytes: Vec<u8>,
}

struct Place {
    name: String,
    data_type: DataType,
    dimensions: Vec<i64>,
}

impl Builder {
    /// Adds a node with one output and returns the output's name, `name`.
    pub fn node(&mut self, operator: OpType<'static>, name: impl Into<String>, inputs: &[&str]) -> String {
        self.node_with(operator, name, inputs, &[])
    }

    /// The same with attributes. An attribute of 0 would not be written, so it has to be the operator's default.
    pub fn node_with(
        &mut self,
        operator: OpType<'static>,
        name: impl Into<String>,
        inputs: &[&str],
        attributes: &[(&'static str, i64)],
    ) -> String {
        let name = name.into();
        self.operation(operator, inputs, vec![name.clone()], attributes);
        name
    }

    /// Adds a node with any outputs.
    pub fn operation(
        &mut self,
        operator: OpType<'static>,
        inputs: &[&str],
        outputs: Vec<String>,
        attributes: &[(&'static str, i64)],
    ) {
        let inputs = inputs.iter().map(|name| (*name).to_string()).collect();
        self.nodes.push(Operation { operator, inputs, outputs, attributes: attributes.to_vec() });
    }

    /// Adds a tensor, unless there is one of this name, and returns its name.
    pub fn constant(
        &mut self,
        name: impl Into<String>,
        dimensions: &[usize],
        data_type: DataType,
        bytes: Vec<u8>,
    ) -> String {
        let name = name.into();
        if self.names.insert(name.clone()) {
            let dimensions = dimensions.iter().map(|size| *size as i64).collect();
            self.constants.push(Constant { name: name.clone(), dimensions, data_type, bytes });
        }
        name
    }

    pub fn floats(&mut self, name: impl Into<String>, dimensions: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, dimensions, DataType::Float, bytes)
    }

    pub fn scalar(&mut self, name: &str, value: f32) -> String {
        self.floats(name, &[], &[value])
    }

    pub fn integers(&mut self, name: impl Into<String>, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[values.len()], DataType::Int64, bytes)
    }

    /// A node that gives a tensor other dimensions.
    pub fn reshape(&mut self, name: &str, tensor: &str, dimensions: &[i64]) -> String {
        let words: Vec<_> = dimensions.iter().map(i64::to_string).collect();
        let shape = self.integers(format!("shape[{}]", words.join(",")), dimensions);
        self.node(OpType::Reshape, name, &[tensor, &shape])
    }

    pub fn input(&mut self, name: &str, data_type: DataType, dimensions: Vec<i64>) -> String {
        self.inputs.push(Place { name: name.into(), data_type, dimensions });
        name.into()
    }

    pub fn output(&mut self, name: &str, data_type: DataType, dimensions: Vec<i64>) {
        self.outputs.push(Place { name: name.into(), data_type, dimensions });
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Error::Data`] for more than 2 GiB.
    pub fn encode(&self, description: &str, about: &[(String, String)]) -> Result<Vec<u8>> {
        let bytes: usize = self.constants.iter().map(|constant| constant.bytes.len() + 256).sum();
        if bytes > MOST_BYTES {
            return Err(Error::Data(format!(
                "the networks have {bytes} bytes, and an ONNX file has at most {MOST_BYTES}: export them as safetensors, agent by \
                 agent, or in f16"
            )));
        }
        let graph = Graph {
            name: "policy",
            doc_string: description,
            node: self.nodes.iter().map(Operation::borrowed).collect(),
            initializer: self.constants.iter().map(Constant::borrowed).collect(),
            input: self.inputs.iter().map(Place::borrowed).collect(),
            output: self.outputs.iter().map(Place::borrowed).collect(),
            ..Graph::default()
        };
        let entries = about.iter().map(|(key, value)| StringStringEntry { key, value });
        Ok(onnx_rs::encode(&Model {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetId { domain: "", version: OPSET }],
            producer_name: "phalanx",
            producer_version: env!("CARGO_PKG_VERSION"),
            graph: Some(graph),
            metadata_props: entries.collect(),
            ..Model::default()
        }))
    }
}

impl Operation {
    fn borrowed(&self) -> Node<'_> {
        let attribute = |(name, value): &(&'static str, i64)| Attribute {
            name,
            r#type: AttributeType::Int,
            i: *value,
            ..Attribute::default()
        };
        Node {
            input: self.inputs.iter().map(String::as_str).collect(),
            output: self.outputs.iter().map(String::as_str).collect(),
            name: self.outputs.iter().map(String::as_str).find(|name| !name.is_empty()).unwrap_or_default(),
            op_type: self.operator.clone(),
            attribute: self.attributes.iter().map(attribute).collect(),
            ..Node::default()
        }
    }
}

impl Constant {
    fn borrowed(&self) -> TensorProto<'_> {
        TensorProto::from_raw(&self.name, self.dimensions.clone(), self.data_type, &self.bytes)
    }
}

impl Place {
    fn borrowed(&self) -> ValueInfo<'_> {
        let dimension = |size: &i64| TensorShapeDimension {
            value: if *size == BATCH { Dimension::Param("batch") } else { Dimension::Value(*size) },
            denotation: "",
        };
        let shape = TensorShape { dim: self.dimensions.iter().map(dimension).collect() };
        let tensor = TensorTypeProto { elem_type: self.data_type, shape: Some(shape) };
        ValueInfo {
            name: &self.name,
            r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: "" }),
            ..ValueInfo::default()
        }
    }
}
