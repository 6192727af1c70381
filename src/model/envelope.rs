//! The container of model files and snapshots: a safetensors file with one JSON text under a key of its own.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;

use crate::files::write_atomically;
use crate::{Error, Result};

/// A tensor to be written.
pub(crate) struct NamedTensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

/// Writes the tensors with `text` under `key`. There is one key, because several would be written in an order that differs
/// from run to run.
///
/// # Errors
/// [`Error::Io`]; [`Error::Checkpoint`] for bytes that do not fit their shape.
pub(crate) fn write(path: &Path, key: &str, text: String, tensors: &[NamedTensor]) -> Result<()> {
    let serialize = || -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let views = tensors.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?;
            Ok((tensor.name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        safetensors::serialize(views, Some(HashMap::from([(key.to_string(), text)])))
    };
    let bytes = serialize().map_err(|error| failed(path, error.to_string()))?;
    write_atomically(path, &bytes)
}

/// The tensors of a file and the text under `key`. `kind` is the kind of file that `key` stands for.
///
/// # Errors
/// A file that is truncated or not a safetensors file, or of another kind.
pub(crate) fn read<'a>(bytes: &'a [u8], key: &str, kind: &str) -> Result<(String, SafeTensors<'a>), String> {
    let damaged = |error: safetensors::SafeTensorError| {
        format!("not a safetensors file, or truncated ({error}): use another copy of it")
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get(key)).cloned();
    let text = text.ok_or_else(|| format!("not a {kind}: its header has no `{key}`"))?;
    Ok((text, tensors))
}

/// The `format` of JSON metadata, which is looked at before anything else is.
///
/// # Errors
/// JSON without one, and a format other than `formats`.
pub(crate) fn check_format(json: &str, formats: RangeInclusive<u32>) -> Result<u32, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format: found } = parse(json)?;
    if !formats.contains(&found) {
        let (oldest, newest) = (formats.start(), formats.end());
        let reads = if oldest == newest {
            format!("format {newest}")
        } else {
            format!("formats {oldest} to {newest}")
        };
        return Err(format!(
            "the file has format {found}, and this version of phalanx reads {reads}: use the version that wrote it"
        ));
    }
    Ok(found)
}

/// Parses JSON metadata.
///
/// # Errors
/// The parser's message.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("its metadata cannot be read ({error})"))
}

/// A reader of one file as an [`Error::Checkpoint`].
pub(crate) fn failed(path: &Path, reason: String) -> Error {
    Error::Checkpoint { path: path.into(), reason }
}

/// Checks that all bytes are finite little-endian numbers of the type.
///
/// # Errors
/// The first that is not.
pub(crate) fn all_finite(dtype: Dtype, bytes: &[u8]) -> Result<(), String> {
    let faulty = match dtype {
        Dtype::F16 => {
            let values =
                bytes.as_chunks::<2>().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32());
            values.enumerate().find(|(_, value)| !value.is_finite())
        }
        _ => {
            let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            values.enumerate().find(|(_, value)| !value.is_finite())
        }
    };
    faulty
        .map_or(Ok(()), |(index, value)| Err(format!("number {index} is {value}, expected a finite number")))
}
